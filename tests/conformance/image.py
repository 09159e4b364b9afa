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
ask() {{ timeout 5 wget -q -O - "http://$1:{PORT}/cgi-bin/guestbook?$2"; }}
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
  until timeout 2 wget -q -O - "http://primary:{PORT}/cgi-bin/guestbook?cmd=register&host=$ADDRESS"; do sleep 0.2; done
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


def build_images(folder: Path) -> list[str]:
    """Two versions of one image, as archives."""
    paths = []
    for name in (ONE, TWO):
        files = {
            "/www/cgi-bin/guestbook": GUESTBOOK.encode(),
            "/www/index.html": name.encode(),
            "/bin/serve": SERVE.encode(),
            "/bin/https": HTTPS.encode(),
        }
        path = str(folder / f"{name.replace(':', '-')}.tar")
        build(path, name, Recipe(cmd=("serve",), files=files, layers=[_openssl()]))
        paths.append(path)
    return paths


def _openssl() -> bytes:
    """This machine's openssl, with the libraries that it loads."""
    program = shutil.which("openssl")
    assert program
    listed = subprocess.run(["ldd", program], capture_output=True, text=True, check=True).stdout
    libraries = [path for path in re.findall(r"(/\S+)", listed) if Path(path).exists()]
    files = {path: Path(path).read_bytes() for path in libraries}
    return tar(files | {"/bin/openssl": Path(program).read_bytes()})
