// From the one file of all hosts to what the agent of one of them is told.
//
//   file ─▶ top: hosts, witness, …        ─┐
//        ─▶ http, as it is on each host    ├─▶ all findings at once, or ─▶ as this host sees it
//        ─▶ each domain, on each of its hosts ─┘
//
// Each host checks all of it: a mistake for beta is found on alpha, not when beta has to take over.

import os from 'node:os';
import path from 'node:path';
import { unknownHost, type AgentConfig, type HostConfig } from './agent.js';
import {
  clusterDomainSchema,
  clusterSchema,
  DOMAINS_MAX,
  HOSTS_MAX,
  SAME_EVERYWHERE,
  type Cluster,
  type ClusterDomain,
} from './cluster-schema.js';
import { ConfigError } from './error.js';
import { unknown } from './fields.js';
import type { HypervisorConfig } from './hypervisor.js';
import { checkOnHosts, type OnHosts } from './on-hosts.js';
import { isMap, type Layer } from './overlay.js';
import { check, printed, problemOf, valueAt, type Keys } from './problems.js';
import { httpSchema, type HttpConfig } from './sections.js';
import { readYaml } from './yaml.js';

const HTTP_PORT = 9300;

/** Where an object came from. */
export interface Origin {
  /** What relative paths start from; default: the working directory. */
  readonly directory?: string;
  /** The file's name for error messages. */
  readonly file?: string;
}

/**
 * `host`: the name of this one; left out, the one of the hosts that is called as this machine is.
 * @throws ConfigError
 */
export async function loadCluster(file: string, host?: string): Promise<AgentConfig> {
  return parseCluster(await readYaml(file), host, { directory: path.dirname(path.resolve(file)), file });
}

/** As loadCluster. @throws ConfigError INVALID, UNKNOWN_HOST */
export function parseCluster(given: unknown, host?: string, origin: Origin = {}): AgentConfig {
  const hosts = valueAt(given, ['hosts']);
  const names = isMap(hosts) ? Object.keys(hosts).slice(0, HOSTS_MAX) : [];
  const self = host ?? hostCalled(os.hostname(), names);
  const directory = origin.directory ?? process.cwd();
  const resolve = (file: string) => path.resolve(directory, file.replaceAll('{host}', self ?? ''));

  const top = check(clusterSchema(resolve), given);
  const http = httpOnHosts(given, names);
  const domainSchema = clusterDomainSchema(resolve, names.length > 0 ? names : null);
  const domains = domainsOf(given).map((domain, index) => domainOnHosts(domain, index, domainSchema));
  const findings = [top, http, ...domains].flatMap((part) => part.findings ?? []);
  if (top.findings !== null || findings.length > 0) {
    throw new ConfigError('INVALID', origin.file ?? null, findings.map(problemOf));
  }
  const agent = asSeenBy(self, top.value, http, domains);
  if (agent === null) throw notAmongThem(self, names, origin.file);
  return agent;
}

/** Which of the hosts a machine is, by what it calls itself: all of that, or up to the first dot. Null: none of them. */
export function hostCalled(machine: string, names: readonly string[]): string | null {
  const whole = machine.toLowerCase();
  const [first = ''] = whole.split('.');
  return [whole, first].find((name) => names.includes(name)) ?? null;
}

function notAmongThem(self: string | null, names: readonly string[], file?: string): ConfigError {
  const expected =
    self === null
      ? `one of ${names.join(', ')} (--host says which; this machine is called ${os.hostname()}, as none of them is)`
      : unknown(self, names, 'host');
  return unknownHost('this host', self ?? undefined, expected, file);
}

function httpOnHosts(given: unknown, names: readonly string[]) {
  const own = new Map<string, Layer>();
  for (const name of names) {
    const keys = ['hosts', name, 'http'];
    const value = valueAt(given, keys);
    if (value !== undefined) own.set(name, { value, keys });
  }
  const shared = { value: valueAt(given, ['http']), keys: ['http'] };
  return checkOnHosts(httpSchema(HTTP_PORT), shared, names, own);
}

function domainsOf(given: unknown): readonly unknown[] {
  const domains = valueAt(given, ['domains']);
  // From the API it may have holes.
  return Array.isArray(domains) ? Array.from<unknown>(domains.slice(0, DOMAINS_MAX)) : [];
}

function domainOnHosts(
  domain: unknown,
  index: number,
  schema: ReturnType<typeof clusterDomainSchema>,
): OnHosts<ClusterDomain> {
  const keys = ['domains', index];
  const { hosts, own } = differences(valueAt(domain, ['hosts']), [...keys, 'hosts']);
  const onHosts = checkOnHosts(schema, { value: domain, keys }, hosts, own);
  const last = hosts.at(-1);
  const attached = [...onHosts.values].filter(([, { hypervisor }]) => isAttached(hypervisor));
  if (last === undefined || hosts.length === 1 || attached.length < hosts.length) return onHosts;
  const qmp = onHosts.locate(last, ['hypervisor', 'qmp']);
  const expected = 'no qmp on one host at least: a standby runs in a QEMU that is started there';
  const finding = { keys: qmp, given: printed(valueAt({ domains: { [index]: domain } }, qmp)), expected };
  return { ...onHosts, findings: [...onHosts.findings, finding] };
}

/** Of a domain's `hosts`, in either form: the names, and what differs on some of them. */
function differences(given: unknown, keys: Keys) {
  const own = new Map<string, Layer>();
  if (Array.isArray(given)) {
    return { hosts: given.filter((name) => typeof name === 'string').slice(0, HOSTS_MAX), own };
  }
  const entries = isMap(given) ? Object.entries(given).slice(0, HOSTS_MAX) : [];
  for (const [host, value] of entries) {
    if (!isMap(value)) continue;
    const differing = Object.entries(value).filter(([key]) => !SAME_EVERYWHERE.includes(key));
    own.set(host, { value: Object.fromEntries(differing), keys: [...keys, host] });
  }
  return { hosts: entries.map(([host]) => host), own };
}

function isAttached(hypervisor: HypervisorConfig): boolean {
  return hypervisor.kind === 'qemu' && hypervisor.mode === 'attached';
}

/** Null: there is no such host. */
function asSeenBy(
  self: string | null,
  cluster: Cluster,
  http: OnHosts<HttpConfig>,
  domains: readonly OnHosts<ClusterDomain>[],
): AgentConfig | null {
  const { hosts, witness, tls, token, plaintext, control, log, hooks, ...rest } = cluster;
  const { handshakeTimeoutMs, maxPendingHandshakes, socketBufferBytes } = rest;
  const own = Object.entries(hosts).find(([name]) => name === self);
  const httpHere = self === null ? undefined : http.values.get(self);
  if (own === undefined || httpHere === undefined) return null;
  const [host, { address, port, listen = address }] = own;
  const accept = { handshakeTimeoutMs, maxPendingHandshakes, socketBufferBytes };
  return {
    host,
    hosts: new Map(Object.entries(hosts).map(([name, at]) => [name, reached(at)])),
    witness,
    listen: { host: listen, port, plaintext, tls, token, ...accept },
    dial: { tls, token, plaintext },
    http: httpHere,
    control,
    log,
    hooks,
    domains: domains.flatMap(({ values }) => {
      const domain = values.get(host);
      return domain === undefined ? [] : [{ ...domain, canStandBy: !isAttached(domain.hypervisor) }];
    }),
  };
}

function reached({ address, port, name = address }: Cluster['hosts'][string]): HostConfig {
  return { address, port, name };
}
