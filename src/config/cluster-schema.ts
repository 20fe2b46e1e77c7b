// The keys of the one file that all hosts have: hosts, witness, what is the same for each agent, and domains.

import path from 'node:path';
import { z } from 'zod';
import { isLoopback } from '../channel/credentials/security.js';
import { stateDirectory } from '../channel/credentials/token-file.js';
import {
  authority,
  certificateName,
  choice,
  distinctNames,
  hostName,
  identifier,
  list,
  listenHost,
  named,
  type Resolve,
  section,
  text,
  unknown,
  wholeNumber,
} from './fields.js';
import { hypervisorSchema, type HypervisorConfig } from './hypervisor.js';
import { isMap } from './overlay.js';
import {
  acceptFields,
  bufferField,
  checkpointSchema,
  disksSchema,
  failoverSchema,
  heartbeatSchema,
  hooksSchema,
  logSchema,
  outputFields,
  precopySchema,
  securityFields,
  waitsForStandby,
} from './sections.js';
import { witnessSchema } from './witness.js';

export const HOSTS_MAX = 64;
export const DOMAINS_MAX = 256;

const NAME = 'a name of letters a-z, digits, hyphens and dots that is no number';
const ADDRESS = 'the host name or address at which the other hosts reach it, without a port';
const HOSTS = `a section of 1 to ${HOSTS_MAX} hosts, by their names`;
const DOMAIN_HOSTS =
  `a list of 1 to ${HOSTS_MAX} names of hosts, in order of preference, ` +
  'or a section of those names with what differs there';
const WHO_READS = 'or tls in this file, or "plaintext: true" (whoever is on the way reads the memory)';

/** As the host calls itself, perhaps with its domain. A number would lose its place in the order of a section. */
function clusterHostName() {
  const label = '[a-z0-9]([a-z0-9-]*[a-z0-9])?';
  return z
    .string({ error: NAME })
    .max(253, { error: NAME })
    .regex(new RegExp(`^(?!\\d+$)${label}(\\.${label})*$`), { error: NAME });
}

function hostSchema() {
  // What the pattern takes and no resolver does: "1.2.3.4.5", or an address with the interface that it is on.
  const isReachable = (address: string) => URL.canParse(`ws://${authority(address, 1)}`);
  return section({
    address: hostName(ADDRESS).refine(isReachable, { error: ADDRESS, abort: true }),
    port: wholeNumber(1, 65_535).default(7300),
    listen: listenHost().optional(),
    name: certificateName().optional(),
    // Laid over that of all hosts, and checked then.
    http: z.unknown().optional(),
  });
}

/** Http and domains are looked at by themselves: what differs on a host is laid over them first. */
export function clusterSchema(resolve: Resolve) {
  return section({
    witness: witnessSchema(resolve),
    hosts: named(clusterHostName(), hostSchema(), HOSTS_MAX, HOSTS),
    ...securityFields(resolve),
    ...acceptFields(),
    http: z.unknown().optional(),
    control: text('the path of a socket')
      .prefault(() => path.join(stateDirectory(), '{host}.sock'))
      .transform(resolve),
    log: logSchema(),
    hooks: hooksSchema(),
    domains: list(z.unknown(), 1, DOMAINS_MAX, `a list of 1 to ${DOMAINS_MAX} domains`).check(distinctNames),
  })
    .check(checkSecurity)
    .check(checkHosts)
    .transform(({ socketBuffer, ...rest }) => ({ ...rest, socketBufferBytes: socketBuffer }));
}

type Hosts = Readonly<Record<string, z.output<ReturnType<typeof hostSchema>>>>;
interface Security {
  readonly hosts: Hosts;
  readonly plaintext: boolean;
  readonly tls?: unknown;
}

function checkSecurity(context: z.core.ParsePayload<Security>): void {
  const { hosts, plaintext, tls } = context.value;
  const issue = (keys: PropertyKey[], input: unknown, message: string) =>
    context.issues.push({ code: 'custom', path: keys, input, message });
  if (tls !== undefined && plaintext) issue(['plaintext'], plaintext, 'false where tls is given');
  for (const [host, { address, listen, name }] of Object.entries(hosts)) {
    const keys = ['hosts', host];
    if (tls !== undefined) continue;
    if (name !== undefined) {
      issue([...keys, 'name'], name, 'none where there is no tls: it is the name in a certificate');
    }
    if (plaintext) continue;
    if (!isLoopback(address)) issue([...keys, 'address'], address, `a loopback address, ${WHO_READS}`);
    if (listen !== undefined && !isLoopback(listen)) {
      issue([...keys, 'listen'], listen, `a loopback address, ${WHO_READS}`);
    }
  }
}

function checkHosts(
  context: z.core.ParsePayload<{ readonly hosts: Hosts; readonly witness: { readonly kind: string } }>,
): void {
  const { hosts, witness } = context.value;
  const entries = Object.entries(hosts);
  const issue = (keys: PropertyKey[], input: unknown, message: string) =>
    context.issues.push({ code: 'custom', path: keys, input, message });
  if (witness.kind === 'fence' && entries.length !== 2) {
    const message =
      'exactly two hosts where witness.kind is fence: each turns the other one off before it goes on alone';
    issue(['hosts'], hosts, message);
  }
  const taken = new Map<string, string>();
  for (const [host, { address, port }] of entries) {
    const place = authority(address.toLowerCase(), port);
    const other = taken.get(place);
    if (other === undefined) taken.set(place, host);
    else issue(['hosts', host, 'port'], port, `a port that ${other}, at the same address, does not have`);
  }
}

/** As it is on one host. `hosts`: the names that there are; null if that is not known. */
export function clusterDomainSchema(resolve: Resolve, hosts: readonly string[] | null) {
  return section({
    name: identifier(),
    hosts: domainHosts(hosts),
    hypervisor: hypervisorSchema(resolve),
    start: choice(['immediately', 'with-standby']).optional(),
    onCrash: choice(['restart', 'stay']).default('restart'),
    checkpoint: checkpointSchema(),
    precopy: precopySchema(),
    disks: disksSchema(),
    heartbeat: heartbeatSchema(),
    buffer: bufferField(),
    failover: failoverSchema(),
    output: section(outputFields(resolve))
      .transform(({ limit, ...rest }) => ({ ...rest, limitBytes: limit }))
      .prefault({}),
  })
    .check((context) => {
      const { hosts, start } = context.value;
      if (start !== 'with-standby' || hosts.length > 1) return;
      const message = 'immediately where hosts has one only: there is nobody to wait for';
      context.issues.push({ code: 'custom', path: ['start'], input: start, message });
    })
    .transform(({ buffer, start, ...rest }) => ({
      ...rest,
      start: start ?? defaultStart(rest.hosts, rest.hypervisor),
      bufferBytes: buffer,
    }));
}

type Start = 'immediately' | 'with-standby';

function defaultStart(hosts: readonly string[], hypervisor: HypervisorConfig): Start {
  return hosts.length > 1 && waitsForStandby(hypervisor) ? 'with-standby' : 'immediately';
}

/** The names come out, in order. */
function domainHosts(hosts: readonly string[] | null) {
  const name = z.string({ error: 'the name of a host' }).refine((given) => hosts?.includes(given) ?? true, {
    error: ({ input }) => unknown(String(input), hosts ?? [], 'host'),
  });
  const names = list(name, 1, HOSTS_MAX, DOMAIN_HOSTS).check((context) => {
    context.value.forEach((given, index) => {
      if (context.value.indexOf(given) === index) return;
      const message = 'a host that is not in the list already';
      context.issues.push({ code: 'custom', path: [index], input: given, message });
    });
  });
  const different = named(name, z.unknown().check(checkDifference), HOSTS_MAX, DOMAIN_HOSTS);
  return z.union([names, different.transform((given) => Object.keys(given))], { error: DOMAIN_HOSTS });
}

/** What it says is checked where it is laid over the domain. */
function checkDifference(context: z.core.ParsePayload): void {
  const { value } = context;
  // "alpha:" and nothing after it.
  if (value === null) return;
  if (!isMap(value)) {
    const message = 'a section with what differs on this host, or nothing';
    context.issues.push({ code: 'custom', input: value, message });
    return;
  }
  for (const key of SAME_EVERYWHERE) {
    if (value[key] === undefined) continue;
    const message = `no ${key}: it is the same on all hosts`;
    context.issues.push({ code: 'custom', path: [key], input: value[key], message });
  }
}

/** Of a domain. */
export const SAME_EVERYWHERE: readonly string[] = ['name', 'hosts'];

export type Cluster = z.output<ReturnType<typeof clusterSchema>>;
export type ClusterDomain = z.output<ReturnType<typeof clusterDomainSchema>>;
