// The smaller sections of a configuration: each key, its default and its limits. Each leaf carries the sentence that
// completes "expected …".

import { z } from 'zod';
import {
  choice,
  duration,
  flag,
  list,
  listenHost,
  pathField,
  type Resolve,
  section,
  size,
  text,
  url,
  wholeNumber,
} from './fields.js';
import { sharesDisks, type HypervisorConfig } from './hypervisor.js';

const MILLISECONDS_PER_HOUR = 3_600_000;

export function portField() {
  return wholeNumber(0, 65_535, 'a port number from 0 (any free one) to 65535');
}

/** What one side shows to the other, and holds it to. TLS is mutual: each checks the other's certificate against `ca`. */
export function securityFields(resolve: Resolve) {
  return {
    plaintext: flag().default(false),
    tls: section({ cert: pathField(resolve), key: pathField(resolve), ca: pathField(resolve) }).optional(),
    token: pathField(resolve).optional(),
  };
}

/** Of whoever listens for the other side. */
export function acceptFields() {
  return {
    handshakeTimeoutMs: duration(10, 60_000).default(2000),
    maxPendingHandshakes: wholeNumber(1, 1024).default(16),
    socketBuffer: size('64KiB', '1GiB').prefault('16MiB'),
  };
}

export function httpSchema(defaultPort: number) {
  const server = section({
    host: listenHost().default('127.0.0.1'),
    port: portField().default(defaultPort),
  });
  return z
    .union([z.literal(false), server], { error: 'false, or a section with host and port' })
    .prefault({});
}

/** False: no HTTP server. */
export type HttpConfig = z.output<ReturnType<typeof httpSchema>>;

export function logSchema() {
  return section({
    level: choice(['trace', 'debug', 'info', 'warn', 'error', 'fatal', 'silent']).default('info'),
    format: choice(['auto', 'json', 'pretty']).default('auto'),
  }).prefault({});
}

export type LogConfig = z.output<ReturnType<typeof logSchema>>;

export function hooksSchema() {
  return section({
    command: commandField().optional(),
    commandTimeoutMs: duration(10, MILLISECONDS_PER_HOUR).default(10_000),
    webhook: section({
      url: url(['http:', 'https:']),
      attempts: wholeNumber(1, 100).default(5),
      timeoutMs: duration(10, 60_000).default(2000),
      retryDelayMs: duration(1, 60_000).default(500),
    }).optional(),
  }).prefault({});
}

export type HooksConfig = z.output<ReturnType<typeof hooksSchema>>;
export type WebhookConfig = NonNullable<HooksConfig['webhook']>;

/** No shell: a program and its arguments. */
export function commandField() {
  return list(text('text'), 1, 64, 'a command and its arguments, as a list');
}

/** Where a domain's output goes: the console's, and a copy of it. */
export function outputFields(resolve: Resolve) {
  return {
    console: consoleSchema(resolve),
    tap: pathField(resolve).optional(),
    limit: size('4KiB', '16GiB').prefault('64MiB'),
  };
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

export function checkpointSchema() {
  return section({
    intervalMs: duration(1, 60_000).default(50),
    windowEpochs: wholeNumber(1, 16).default(1),
    slab: size('1MiB', '4GiB').prefault('32MiB'),
    acknowledgeTimeoutMs: duration(10, MILLISECONDS_PER_HOUR).default(5000),
    switchoverTimeoutMs: duration(100, MILLISECONDS_PER_HOUR).default(5000),
    hypervisorTimeoutMs: duration(100, MILLISECONDS_PER_HOUR).default(10_000),
  })
    .transform(({ slab, ...rest }) => ({ ...rest, slabBytes: slab }))
    .prefault({});
}

export function precopySchema() {
  return section({
    maxIterations: wholeNumber(1, 100).default(5),
    targetDirtyPages: wholeNumber(0, 2 ** 20).default(50),
  }).prefault({});
}

/** How its replicated disks are copied; which they are, and of what kind, says the hypervisor's section. */
export function disksSchema() {
  return section({ bandwidth: size('64KiB', '1TiB').optional() })
    .transform(({ bandwidth }) => ({ ...(bandwidth !== undefined && { bytesPerSecond: bandwidth }) }))
    .prefault({});
}

export function heartbeatSchema() {
  return section({
    intervalMs: duration(1, 60_000).default(100),
    timeoutMs: duration(2, 600_000).default(1000),
  })
    .check((context) => {
      const { intervalMs, timeoutMs } = context.value;
      if (timeoutMs >= 2 * intervalMs) return;
      context.issues.push({
        code: 'custom',
        path: ['timeoutMs'],
        input: timeoutMs,
        message: `at least twice heartbeat.intervalMs (${2 * intervalMs}): one late heartbeat is no dead host`,
      });
    })
    .prefault({});
}

/** The largest checkpoint that a standby takes. */
export function bufferField() {
  return size('1MiB', '64GiB').prefault('256MiB');
}

export function failoverSchema() {
  return section({
    reconnectWindowMs: duration(0, 600_000).default(300),
    connectTimeoutMs: duration(10, 60_000).default(1000),
    redialMinMs: duration(1, 60_000).default(50),
    redialMaxMs: duration(1, 600_000).default(2000),
  })
    .check((context) => {
      const { redialMinMs, redialMaxMs } = context.value;
      if (redialMaxMs >= redialMinMs) return;
      context.issues.push({
        code: 'custom',
        path: ['redialMaxMs'],
        input: redialMaxMs,
        message: `at least failover.redialMinMs (${redialMinMs})`,
      });
    })
    .prefault({});
}

/**
 * Whether a domain starts only once the other side is there, if nothing else is said: a guest that is booted anew while
 * a secondary takes over the one that died would write to the disks of both.
 */
export function waitsForStandby(hypervisor: HypervisorConfig): boolean {
  const isNew = hypervisor.kind === 'qemu' && hypervisor.mode === 'managed';
  return isNew && sharesDisks(hypervisor);
}
