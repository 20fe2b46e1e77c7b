// The network of a cluster in a lab: hosts, a witness and a client on one switch, each a network namespace.
//
//   alpha                  beta …                 witness          client
//   tap0 ─ br0 ─ uplink ─┐ │                      │ etcd           │
//   10.77.0.11           port-…, switch           10.77.0.21       10.77.0.13
//
// A way that is cut loses what is sent on it, silently: its packets are routed to a bridge that has no ports. So a way
// is cut in one direction, or in both. A guest is on the same switch and notices nothing of it.

import { ADDRESSES, TAP, type Lab } from '../hypervisor/qemu/lab.js';

export const HOSTS = ['alpha', 'beta', 'gamma'] as const;
export type HostName = (typeof HOSTS)[number];
/** What can be cut off from each other. */
export type Party = HostName | 'witness';

export const ADDRESS_OF: Readonly<Record<Party | 'client' | 'guest', string>> = {
  alpha: '10.77.0.11',
  beta: '10.77.0.12',
  client: '10.77.0.13',
  gamma: '10.77.0.14',
  witness: '10.77.0.21',
  guest: ADDRESSES.guest,
};

const HOLE = 'hole';

/** Shell: the network with so many hosts. */
export function networkOf(hosts: readonly HostName[]): string {
  const all = [...hosts, 'witness', 'client'].join(' ');
  const addresses = [...hosts.map((host) => [host, 'br0']), ['witness', 'uplink'], ['client', 'uplink']];
  return `
ip link add switch type bridge
ip link set switch up
for host in ${all}; do
  ip netns add $host
  ip link add port-$host type veth peer name uplink netns $host
  ip link set port-$host master switch up
  ip -n $host link set lo up
  ip -n $host link set uplink up
  ip -n $host link add ${HOLE} type bridge
  ip -n $host link set ${HOLE} up
done
for host in ${hosts.join(' ')}; do
  ip -n $host link add br0 type bridge
  ip -n $host tuntap add ${TAP} mode tap
  ip -n $host link set uplink master br0
  ip -n $host link set ${TAP} master br0 up
  ip -n $host link set br0 up
done
${addresses
  .map(([host, device]) => `ip -n ${host} address add ${ADDRESS_OF[host as Party]}/24 dev ${device}`)
  .join('\n')}
`;
}

/** What is sent from one to the other does not arrive. Safe to call twice. */
export async function cutWay(lab: Lab, from: Party, to: Party): Promise<void> {
  const address = ADDRESS_OF[to];
  const nobody = ['lladdr', '02:00:00:00:00:01', 'dev', HOLE];
  await lab.run(from, 'ip', 'neigh', 'replace', address, ...nobody);
  await lab.run(from, 'ip', 'route', 'replace', `${address}/32`, 'dev', HOLE, 'src', ADDRESS_OF[from]);
}

/** Safe to call where nothing is cut. */
export async function healWay(lab: Lab, from: Party, to: Party): Promise<void> {
  const route = `${ADDRESS_OF[to]}/32`;
  const there = await lab.run(from, 'ip', 'route', 'show', route);
  if (there.trim() !== '') await lab.run(from, 'ip', 'route', 'del', route);
}

/** The host's cable is pulled, or plugged in. Without it neither the host nor a guest on it is heard. */
export async function plug(lab: Lab, host: HostName, on: boolean): Promise<void> {
  await lab.run(host, 'ip', 'link', 'set', 'uplink', on ? 'up' : 'down');
}
