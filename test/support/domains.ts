// A domain's configuration, as it comes out of the file of a cluster that says nothing else.

import { primaryOf, secondaryOf, type AgentConfig, type AgentDomainConfig } from '../../src/config/agent.js';
import { parseCluster, type Origin } from '../../src/config/cluster.js';

/** As north is told of it, where it runs; it stands by on south. */
function agentOf(domain: object, origin: Origin): readonly [AgentDomainConfig, AgentConfig] {
  const at = (port: number) => ({ address: '127.0.0.1', port });
  const agent = parseCluster(
    {
      witness: { kind: 'none' },
      hosts: { north: at(1), south: at(2) },
      domains: [{ name: 'web', hosts: ['north', 'south'], hypervisor: { kind: 'embedded' }, ...domain }],
    },
    'north',
    origin,
  );
  const [config] = agent.domains;
  if (!config) throw new Error('there is no domain');
  return [config, agent];
}

/** Left out: `web`, an embedded machine. */
export function primaryDomain(domain: object = {}, origin: Origin = {}) {
  return primaryOf(...agentOf(domain, origin));
}

/** The same, stood by for here while it runs on south. */
export function standbyDomain(domain: object = {}, origin: Origin = {}) {
  return secondaryOf(...agentOf(domain, origin), 'south');
}
