#!/bin/sh
# Runs a RabbitMQ node of its own in the foreground: broker.sh FOLDER PORT DISTRIBUTION-PORT EPMD-PORT
#
# Nothing of it is shared with a node that the system runs: names, ports, folders, cookie. epmd runs beside it in the same process group: left to
# itself, the node would start one that outlives it.
folder=$1 port=$2 distribution=$3 epmd=$4
lib=/usr/lib/rabbitmq/bin
export HOME="$folder" ERL_EPMD_PORT="$epmd" ERL_EPMD_ADDRESS=127.0.0.1
export RABBITMQ_NODENAME="storage$port@localhost" RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT="$port"
export RABBITMQ_DIST_PORT="$distribution" RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="-kernel inet_dist_use_interface {127,0,0,1}"
export RABBITMQ_MNESIA_BASE="$folder/mnesia" RABBITMQ_LOG_BASE="$folder/logs" RABBITMQ_PID_FILE="$folder/node.pid"
export RABBITMQ_ENABLED_PLUGINS_FILE="$folder/plugins" RABBITMQ_CONF_ENV_FILE="$folder/env" RABBITMQ_CONFIG_FILE="$folder/rabbitmq.conf"
if [ -n "$5" ]; then
    # A command for the node: broker.sh FOLDER PORT DISTRIBUTION-PORT EPMD-PORT COMMAND [ARGUMENT…]
    shift 4
    exec "$lib/rabbitmqctl" "$@"
fi
mkdir -p "$folder/mnesia" "$folder/logs"
: >"$folder/env"
echo '[].' >"$folder/plugins"
cat >"$folder/rabbitmq.conf" <<END
disk_free_limit.absolute = 50MB
raft.wal_max_size_bytes = 33554432
log.file = false
log.console = true
log.console.level = warning
END
# What a test adds.
[ ! -f "$folder/more.conf" ] || cat "$folder/more.conf" >>"$folder/rabbitmq.conf"
epmd -port "$epmd" -address 127.0.0.1 &
exec "$lib/rabbitmq-server"
