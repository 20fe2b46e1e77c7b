// The configuration of both sides: every key, its default and its limits. What comes out is resolved: defaults filled
// in, sizes in octets (`slab: 32MiB` becomes `slabBytes`), paths absolute. An unknown key is an error, because a
// misspelt key that is silently ignored leaves a domain unprotected in the way its owner thinks it is protected.
//
// Each leaf carries the sentence that completes "expected …"; load.ts puts key and value before it.

import { isIP } from 'node:net';
import path from 'node:path';
import { z } from 'zod';
import { isLoopback } from '../channel/credentials/security.js';
import {
  choice,
  distinct,
  flag,
  identifier,
  list,
  pathField,
  problem,
  type Resolve,
  section,
  size,
  text,
  url,
  wholeNumber,
} from './fields.js';
import { hypervisorSchema, sharesDisks, type HypervisorConfig } from './hypervisor.js';

const MILLISECONDS_PER_HOUR = 3_600_000;

const duration = (minimum: number, maximum: number) =>
  wholeNumber(minimum, maximum, `a whole number of milliseconds from ${minimum} to ${maximum}`);

const distinctNames = distinct('name', 'a name that no other domain here has');

const portField = () => wholeNumber(0, 65_535, 'a port number from 0 (any free one) to 65535');

const hostField = () => text('a host name or address to listen on');

/** Mutual: each side shows a certificate, and checks the other's against `ca`. */
function tlsSchema(resolve: Resolve) {
  return section({ cert: pathField(resolve), key: pathField(resolve), ca: pathField(resolve) });
}

/** As a certificate says it: a host name, or an address. */
function certificateName() {
  const expected = "a host name or address, as in a certificate's subject alternative names (no wildcard)";
  const hostName = /^[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*$/i;
  return text(expected).refine((name) => isIP(name) !== 0 || hostName.test(name), { error: expected });
}

function listenSchema(resolve: Resolve) {
  return section({
    host: hostField().default('127.0.0.1'),
    port: portField().default(7300),
    plaintext: flag().default(false),
    tls: tlsSchema(resolve).optional(),
    token: pathField(resolve).optional(),
    handshakeTimeoutMs: duration(10, 60_000).default(2000),
    maxPendingHandshakes: wholeNumber(1, 1024).default(16),
    socketBuffer: size('64KiB', '1GiB').prefault('16MiB'),
  })
    .check((context) => {
      const listen = context.value;
      if (listen.tls && listen.plaintext) {
        problem(context, ['plaintext'], 'false where tls is given');
      } else if (!listen.tls && !listen.plaintext && !isLoopback(listen.host)) {
        problem(
          context,
          ['host'],
          'a loopback address, or tls beside it, or "plaintext: true" (whoever reaches the port reads the memory)',
        );
      }
    })
    .transform(({ socketBuffer, ...rest }) => ({ ...rest, socketBufferBytes: socketBuffer }));
}

function httpSchema(defaultPort: number) {
  const server = section({
    host: hostField().default('127.0.0.1'),
    port: portField().default(defaultPort),
  });
  return z
    .union([z.literal(false), server], { error: 'false, or a section with host and port' })
    .prefault({});
}

function logSchema() {
  return section({
    level: choice(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
    format: choice(['auto', 'json', 'pretty']).default('auto'),
  }).prefault({});
}

function hooksSchema() {
  return section({
    command: list(text('text'), 1, 64, 'a command and its arguments, as a list').optional(),
    commandTimeoutMs: duration(10, MILLISECONDS_PER_HOUR).default(10_000),
    webhook: section({
      url: url(['http:', 'https:']),
      attempts: wholeNumber(1, 100).default(5),
      timeoutMs: duration(10, 60_000).default(2000),
      retryDelayMs: duration(1, 60_000).default(500),
    }).optional(),
  }).prefault({});
}

function consoleSchema(resolve: Resolve) {
  return z
    .union(
      [
        z.literal('stdout').transform(() => ({ kind: 'stdout' as const })),
        z.literal('none').transform(() => ({ kind: 'none' as const })),
        section({ file: pathField(resolve) }).transform(({ file }) => ({ kind: 'file' as const, file })),
      ],
      { error: 'stdout, none, or a section with file' },
    )
    .prefault('stdout');
}

function outputLimit() {
  return size('4KiB', '16GiB').prefault('64MiB');
}

function checkpointSchema() {
  return section({
    intervalMs: duration(1, 60_000).default(50),
    windowEpochs: wholeNumber(1, 16).default(1),
    slab: size('1MiB', '4GiB').prefault('32MiB'),
    acknowledgeTimeoutMs: duration(10, MILLISECONDS_PER_HOUR).default(5000),
    hypervisorTimeoutMs: duration(100, MILLISECONDS_PER_HOUR).default(10_000),
  })
    .transform(({ slab, ...rest }) => ({ ...rest, slabBytes: slab }))
    .prefault({});
}

function heartbeatSchema() {
  return section({
    intervalMs: duration(1, 60_000).default(100),
    timeoutMs: duration(2, 600_000).default(1000),
  })
    .check((context) => {
      const { intervalMs, timeoutMs } = context.value;
      if (timeoutMs >= 2 * intervalMs) return;
      const expected = `at least twice heartbeat.intervalMs (${2 * intervalMs}): one late heartbeat is no dead host`;
      problem(context, ['timeoutMs'], expected);
    })
    .prefault({});
}

const SECONDARY_NAMES =
  'a list of the names (or addresses) in the certificate of its secondary, or any, where listen.tls is given';

function primaryDomainSchema(resolve: Resolve) {
  return section({
    name: identifier(),
    secondaryNames: z
      .union([z.literal('any'), list(certificateName(), 1, 64, SECONDARY_NAMES)], { error: SECONDARY_NAMES })
      .optional(),
    hypervisor: hypervisorSchema(resolve),
    start: choice(['immediately', 'with-secondary']).optional(),
    checkpoint: checkpointSchema(),
    precopy: section({
      maxIterations: wholeNumber(1, 100).default(5),
      targetDirtyPages: wholeNumber(0, 2 ** 20).default(50),
    }).prefault({}),
    heartbeat: heartbeatSchema(),
    output: section({
      console: consoleSchema(resolve),
      tap: pathField(resolve).optional(),
      whenUnprotected: choice(['hold', 'pass']).default('hold'),
      limit: outputLimit(),
    })
      .transform(({ limit, ...rest }) => ({ ...rest, limitBytes: limit }))
      .prefault({}),
  })
    .check((context) => {
      const { hypervisor, output } = context.value;
      if (output.whenUnprotected !== 'pass' || !sharesDisks(hypervisor)) return;
      problem(
        context,
        ['output', 'whenUnprotected'],
        'hold where the hypervisor has sharedDisks (the guest stands still while a secondary may have taken over)',
      );
    })
    .transform(({ start, ...rest }) => ({ ...rest, start: start ?? defaultStart(rest.hypervisor) }));
}

/** A guest that is booted anew while a secondary takes over the one that died would write to the disks of both. */
function defaultStart(hypervisor: HypervisorConfig): 'immediately' | 'with-secondary' {
  const isNew = hypervisor.kind === 'qemu' && hypervisor.mode === 'managed';
  return isNew && sharesDisks(hypervisor) ? 'with-secondary' : 'immediately';
}

function failoverSchema() {
  return section({
    reconnectWindowMs: duration(0, 600_000).default(300),
    connectTimeoutMs: duration(10, 60_000).default(1000),
    redialMinMs: duration(1, 60_000).default(50),
    redialMaxMs: duration(1, 600_000).default(2000),
  })
    .check((context) => {
      const { redialMinMs, redialMaxMs } = context.value;
      if (redialMaxMs >= redialMinMs) return;
      problem(context, ['redialMaxMs'], `at least failover.redialMinMs (${redialMinMs})`);
    })
    .prefault({});
}

function secondaryDomainSchema(resolve: Resolve) {
  return section({
    name: identifier(),
    primary: url(['ws:', 'wss:']),
    plaintext: flag().default(false),
    tls: tlsSchema(resolve).optional(),
    primaryName: certificateName().optional(),
    token: pathField(resolve).optional(),
    hypervisor: hypervisorSchema(resolve),
    buffer: size('1MiB', '64GiB').prefault('256MiB'),
    failover: failoverSchema(),
    output: section({
      console: consoleSchema(resolve),
      tap: pathField(resolve).optional(),
      limit: outputLimit(),
    })
      .transform(({ limit, ...rest }) => ({ ...rest, limitBytes: limit }))
      .prefault({}),
  })
    .check((context) => {
      const { primary, tls, primaryName, plaintext, hypervisor } = context.value;
      const { protocol, hostname } = new URL(primary);
      const refuse = (key: string, expected: string) => problem(context, [key], expected);
      if (hypervisor.kind === 'qemu' && hypervisor.mode === 'attached') {
        problem(context, ['hypervisor', 'qmp'], 'no qmp: a standby runs in a QEMU that is started here');
      }
      if (primaryName !== undefined && !tls) {
        refuse('primaryName', 'none where there is no tls: it is the name in a certificate');
      }
      if (protocol === 'wss:') {
        if (!tls) refuse('tls', 'a section with cert, key and ca where primary is a wss:// address');
        if (plaintext) refuse('plaintext', 'false where primary is a wss:// address');
      } else if (tls) {
        refuse('primary', 'a wss:// address where tls is given');
      } else if (!plaintext && !isLoopback(hostname)) {
        refuse(
          'primary',
          'a loopback address, or wss:// with tls, or "plaintext: true" beside it (whoever is on the way reads the memory)',
        );
      }
    })
    .transform(({ buffer, ...rest }) => ({ ...rest, bufferBytes: buffer }));
}

export function primarySchema(directory: string) {
  const resolve = (file: string) => path.resolve(directory, file);
  return section({
    listen: listenSchema(resolve).prefault({}),
    http: httpSchema(9300),
    log: logSchema(),
    hooks: hooksSchema(),
    domains: list(primaryDomainSchema(resolve), 1, 256, 'a list of 1 to 256 domains').check(distinctNames),
  }).check((context) => {
    // Whom the authority has signed is not yet whom this domain is for.
    const { listen, domains } = context.value;
    domains.forEach(({ secondaryNames }, index) => {
      if ((listen.tls !== undefined) === (secondaryNames !== undefined)) return;
      problem(context, ['domains', index, 'secondaryNames'], SECONDARY_NAMES);
    });
  });
}

export function secondarySchema(directory: string) {
  const resolve = (file: string) => path.resolve(directory, file);
  return section({
    http: httpSchema(9301),
    log: logSchema(),
    hooks: hooksSchema(),
    domains: list(secondaryDomainSchema(resolve), 1, 256, 'a list of 1 to 256 domains').check(distinctNames),
  });
}

/** Resolved: this is what programs pass to the services. */
export type PrimaryConfig = z.output<ReturnType<typeof primarySchema>>;
export type SecondaryConfig = z.output<ReturnType<typeof secondarySchema>>;
export type PrimaryDomainConfig = PrimaryConfig['domains'][number];
export type SecondaryDomainConfig = SecondaryConfig['domains'][number];
/** False: no HTTP server. */
export type HttpConfig = PrimaryConfig['http'];
export type LogConfig = PrimaryConfig['log'];
export type HooksConfig = PrimaryConfig['hooks'];
export type WebhookConfig = NonNullable<HooksConfig['webhook']>;
export type { BootConfig, EmbeddedConfig, HypervisorConfig, QemuHypervisorConfig } from './hypervisor.js';
