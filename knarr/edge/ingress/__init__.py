"""Ingress: HTTP from outside to Services, by host and path, on Envoy (networking.k8s.io/v1).

    annotations, backends, certificates     what single objects say
    picture     all of them merged into one Routing; what is wrong with which Ingress
    envoy       a Routing as Envoy's resources
    wire        resources as protobuf, by the table messages.txt
    xds         resources to a running Envoy, in the order that breaks nothing; what it confirmed or refused
    child       the Envoy process
    edge        the loop: objects → picture → Envoy; events, status, acknowledgement

The first four are plain functions over values. docs/ingress.md is for users.
"""
