"""What upstream's test image does for its tests, by busybox: serve, keep a guestbook, and ask over verified TLS."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from tests.images import Recipe, build, tar

ONE, TWO = "conformance:v1", "conformance:v2"
PORT = 6379

GUESTBOOK = f"""#!/bin/sh
# cmd=set&value=…, cmd=get, cmd=register&host=…; ROLE says who this is: primary, replica or frontend.
value() {{ echo "$QUERY_STRING" | tr '&' '\\n' | sed -n "s/^$1=//p"; }}
ask() {{ timeout 30 wget -q -O - "http://$1:{PORT}/cgi-bin/guestbook?$2"; }}
printf 'Content-Type: text/plain\\r\\n\\r\\n'
case "$ROLE/$(value cmd)" in
  frontend/set) ask primary "$QUERY_STRING" ;;
  frontend/get) ask replica "$QUERY_STRING" ;;
  primary/register) grep -qsx "$(value host)" /tmp/replicas || value host >> /tmp/replicas; echo registered ;;
  primary/set) value value > /tmp/entry; for host in $(cat /tmp/replicas); do ask "$host" "$QUERY_STRING"; done ;;
  replica/set) value value > /tmp/entry; echo kept ;;
  */get) cat /tmp/entry 2>/dev/null ;;
esac
"""
SERVE = f"""#!/bin/sh
# Serves /www; a replica makes itself known to the primary first.
if [ "$ROLE" = replica ]; then
  until timeout 5 wget -q -O - "http://primary:{PORT}/cgi-bin/guestbook?cmd=register&host=$ADDRESS"; do sleep 0.2; done
fi
exec httpd -f -p {PORT} -h /www
"""
HTTPS = """#!/bin/sh
# https PATH TOKEN: the answer of the API server, which must show a certificate of the CA that every pod is given.
secrets=/var/run/secrets/kubernetes.io/serviceaccount
name=kubernetes.default.svc
printf 'GET %s HTTP/1.0\\r\\nHost: %s\\r\\nAuthorization: Bearer %s\\r\\n\\r\\n' "$1" "$name" "$2" |
  openssl s_client -quiet -verify_quiet -connect $name:443 -servername $name -verify_hostname $name \\
    -CAfile $secrets/ca.crt -verify_return_error
"""

UDP_SERVER = """#!/usr/bin/perl
# udp-server PORT: answers every datagram with the pod's name; from when /tmp/udp-PORT is there.
use Socket;
socket(my $socket, PF_INET, SOCK_DGRAM, 0) or die $!;
bind($socket, sockaddr_in($ARGV[0], INADDR_ANY)) or die $!;
open(my $bound, ">", "/tmp/udp-$ARGV[0]") or die $!;
chomp(my $name = `hostname`);
while (my $from = recv($socket, my $asked, 1024, 0)) { send($socket, $name, 0, $from); }
"""
UDP_CLIENT = """#!/usr/bin/perl
# udp HOST PORT TIMES: asks each time from a new port, and prints the answers, a line each.
use Socket;
$SIG{ALRM} = sub { die "no answer\\n" };
for (1 .. ($ARGV[2] || 1)) {
  socket(my $socket, PF_INET, SOCK_DGRAM, 0) or die $!;
  connect($socket, sockaddr_in($ARGV[1], inet_aton($ARGV[0]))) or die $!;
  send($socket, "who", 0);
  alarm 5;
  defined recv($socket, my $answer, 1024, 0) or die "$!\\n";
  alarm 0;
  print "$answer\\n";
}
"""
HTTP_ECHO = """#!/usr/bin/perl
# http-echo PORT: answers every request with its method and path.
use Socket;
socket(my $server, PF_INET, SOCK_STREAM, 0) or die $!;
setsockopt($server, SOL_SOCKET, SO_REUSEADDR, 1);
bind($server, sockaddr_in($ARGV[0], INADDR_ANY)) or die $!;
listen($server, 64) or die $!;
while (accept(my $client, $server)) {
  my ($method, $path) = split(/ /, scalar <$client>);
  my $length = 0;
  while (my $line = <$client>) { $length = $1 if $line =~ /^content-length: *(\\d+)/i; last if $line =~ /^\\r?\\n$/; }
  read($client, my $body, $length) if $length;
  my $answer = $method eq "HEAD" ? "" : "$method $path";
  my $size = length($answer);
  syswrite($client, "HTTP/1.1 200 OK\\r\\nContent-Length: $size\\r\\nConnection: close\\r\\n\\r\\n$answer");
  close($client);
}
"""


def build_images(folder: Path) -> list[str]:
    """Two versions of one image, as archives."""
    paths = []
    for name in (ONE, TWO):
        files = {
            "/www/cgi-bin/guestbook": GUESTBOOK.encode(),
            "/www/index.html": name.encode(),
            "/bin/serve": SERVE.encode(),
            "/bin/https": HTTPS.encode(),
            "/bin/udp-server": UDP_SERVER.encode(),
            "/bin/udp": UDP_CLIENT.encode(),
            "/bin/http-echo": HTTP_ECHO.encode(),
        }
        path = str(folder / f"{name.replace(':', '-')}.tar")
        build(path, name, Recipe(cmd=("serve",), files=files, layers=[_openssl(), _perl()]))
        paths.append(path)
    return paths


def _openssl() -> bytes:
    """This machine's openssl, with the libraries that it loads."""
    program = shutil.which("openssl")
    assert program
    return tar({"/bin/openssl": Path(program).read_bytes(), **_libraries(program)})


def _perl() -> bytes:
    """This machine's perl with what Debian always has of it: busybox knows no UDP."""
    program = "/usr/bin/perl"
    (folder,) = Path("/usr/lib").glob("*/perl-base")
    modules = {str(path): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    return tar({program: Path(program).read_bytes(), **_libraries(program), **modules})


def _libraries(program: str) -> dict[str, bytes]:
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    return {path: Path(path).read_bytes() for path in re.findall(r"(/\S+)", listed) if Path(path).exists()}
