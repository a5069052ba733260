# Runs a PostgreSQL server of its own: `sh -c SCRIPT server FOLDER PORT [OPTION…]`. What is in the folder is used again; options go to `postgres`.
# PostgreSQL refuses to run as root: then it becomes the user that its package has made.
folder=$1 port=$2; shift 2
bin=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1)
as=
if [ "$(id -u)" = 0 ]; then
  as='setpriv --reuid=postgres --regid=postgres --clear-groups'
  chown -R postgres:postgres "$folder"
fi
cd "$folder" || exit 1
if [ ! -e data/ready ]; then
  rm -rf data
  # What is not on the disk yet when it ends is made anew.
  $as "$bin/initdb" --pgdata=data --username=postgres --auth=trust --encoding=UTF8 --locale=C.UTF-8 --no-sync >initdb.log 2>&1 || { cat initdb.log; exit 1; }
  printf 'host all locked 127.0.0.1/32 scram-sha-256\nhost all,replication all 127.0.0.1/32 trust\nlocal all all trust\n' >data/pg_hba.conf
  touch data/ready
fi
exec $as "$bin/postgres" -D data -p "$port" -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c max_connections=300 \
  -c dynamic_shared_memory_type=mmap -c shared_buffers=64MB "$@"
