//! Redis, alone and as a Cluster.

use super::{Launch, Place, Ready};
use crate::Result;

/// Nothing but the port is asked of a server in a Cluster; its second port is for the other nodes. Ends with the last of them.
const CLUSTER: &str = r#"
for n in 1 2 3; do
  mkdir -p "node$n"
  port=$1 bus=$2; shift 2
  redis-server --bind 127.0.0.1 --port "$port" --cluster-enabled yes --cluster-port "$bus" --cluster-node-timeout 5000 \
    --save '' --dir "node$n" &
  ports="$ports $port" buses="$buses $bus"
done
set -- $buses
first=${ports# }; first=${first%% *}
start=0
for port in $ports; do
  until redis-cli -p "$port" ping >ping 2>&1; do sleep 0.1; done
  end=$((start + 5461)); [ "$end" -gt 16383 ] && end=16383
  redis-cli -p "$port" cluster addslotsrange "$start" "$end"
  start=$((end + 1))
  [ "$port" = "$first" ] || redis-cli -p "$first" cluster meet 127.0.0.1 "$port" "$1"
  shift
done
wait
"#;

/// A server that is durable: each answer is on the disk.
pub(super) fn single(place: &Place) -> Result<Launch> {
    let port = place.ports[0];
    let port_text = port.to_string();
    let arguments = ["--bind", "127.0.0.1", "--port", &port_text, "--save", "", "--appendonly", "yes", "--appendfsync", "always"];
    Ok(Launch {
        program: None,
        arguments: arguments.map(str::to_owned).to_vec(),
        address: format!("redis://127.0.0.1:{port}"),
        ready: Ready::Answer { ports: vec![port], ask: b"PING\r\n", expect: b"+PONG" },
        beside: None,
    })
}

/// Three servers without replicas.
pub(super) fn cluster(place: &Place) -> Result<Launch> {
    let (ports, buses) = place.ports.split_at(3);
    let pairs = ports.iter().zip(buses).flat_map(|(port, bus)| [port.to_string(), bus.to_string()]);
    let script = ["-c", CLUSTER, "cluster"].map(str::to_owned);
    let addresses: Vec<String> = ports.iter().map(|port| format!("127.0.0.1:{port}")).collect();
    Ok(Launch {
        program: Some("sh"),
        arguments: script.into_iter().chain(pairs).collect(),
        address: format!("redis+cluster://{}", addresses.join(",")),
        ready: Ready::Answer { ports: ports.to_vec(), ask: b"CLUSTER INFO\r\n", expect: b"cluster_state:ok" },
        beside: None,
    })
}
