# Runs a MySQL server of its own, unpacked as `cargo xtask test --all` does: `sh -c SCRIPT server FOLDER PORT [OPTION…]`.
folder=$1 port=$2; shift 2
cd "$folder" || exit 1
root=$(dirname "$(dirname "$(command -v mysqld-unpacked)")")/mysql-server-core/root
set -- --no-defaults --user="$(id -un)" --datadir="$folder/data" --basedir="$root/usr" --plugin-dir="$root/usr/lib/mysql/plugin" --secure-file-priv=NULL \
  --log-error-verbosity=1 "$@"
if [ ! -e data/ready ]; then
  rm -rf data
  mysqld-unpacked "$@" --initialize-insecure >install.log 2>&1 || { cat install.log; exit 1; }
  touch data/ready
fi
exec mysqld-unpacked "$@" --bind-address=127.0.0.1 --port="$port" --socket="$folder/socket" --pid-file="$folder/pid" --mysqlx=OFF --max-connections=400 \
  --innodb-buffer-pool-size=64M
