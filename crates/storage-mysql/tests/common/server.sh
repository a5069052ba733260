# Runs a MariaDB server of its own: `sh -c SCRIPT server FOLDER PORT [OPTION…]`. What is in the folder is used again; options go to `mariadbd`.
folder=$1 port=$2; shift 2
PATH=$PATH:/usr/sbin
cd "$folder" || exit 1
user=$(id -un)
# Of its own: a server that starts removes tables of others that it finds in the common one.
mkdir -p tmp
if [ ! -e data/ready ]; then
  rm -rf data
  mariadb-install-db --no-defaults --datadir="$folder/data" --tmpdir="$folder/tmp" --user="$user" --auth-root-authentication-method=normal --skip-test-db >install.log 2>&1 ||
    { cat install.log; exit 1; }
  touch data/ready
fi
exec mariadbd --no-defaults --user="$user" --datadir="$folder/data" --tmpdir="$folder/tmp" --bind-address=127.0.0.1 --port="$port" --socket="$folder/socket" \
  --pid-file="$folder/pid" --max-connections=400 --innodb-buffer-pool-size=64M --innodb-log-file-size=32M "$@"
