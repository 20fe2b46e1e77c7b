// The configuration of both sides: every key, its default and its limits. What comes out is resolved: defaults filled
// in, sizes in octets (`slab: 32MiB` becomes `slabBytes`), paths absolute. An unknown key is an error, because a
// misspelt key that is silently ignored leaves a domain unprotected in the way its owner thinks it is protected.
//
// Each leaf carries the sentence that completes "expected …"; load.ts puts key and value before it.

import path from 'node:path';
import { z } from 'zod';
import { isLoopback } from '../channel/credentials/security.js';
import {
  certificateName,
  choice,
  distinctNames,
  problem,
  identifier,
  list,
  listenHost,
  type Resolve,
  section,
  url,
} from './fields.js';
import { hypervisorSchema, sharesDisks } from './hypervisor.js';
import {
  acceptFields,
  bufferField,
  checkpointSchema,
  failoverSchema,
  heartbeatSchema,
  hooksSchema,
  httpSchema,
  logSchema,
  outputFields,
  portField,
  precopySchema,
  securityFields,
  waitsForStandby,
} from './sections.js';

function listenSchema(resolve: Resolve) {
  return section({
    host: listenHost().default('127.0.0.1'),
    port: portField().default(7300),
    ...securityFields(resolve),
    ...acceptFields(),
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
    precopy: precopySchema(),
    heartbeat: heartbeatSchema(),
    output: section({
      ...outputFields(resolve),
      whenUnprotected: choice(['hold', 'pass']).default('hold'),
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
    .transform(({ start, ...rest }) => ({
      ...rest,
      start: start ?? (waitsForStandby(rest.hypervisor) ? 'with-secondary' : 'immediately'),
    }));
}

function secondaryDomainSchema(resolve: Resolve) {
  return section({
    name: identifier(),
    primary: url(['ws:', 'wss:']),
    ...securityFields(resolve),
    primaryName: certificateName().optional(),
    hypervisor: hypervisorSchema(resolve),
    buffer: bufferField(),
    failover: failoverSchema(),
    output: section(outputFields(resolve))
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
export type ListenConfig = PrimaryConfig['listen'];
export type PrimaryDomainConfig = PrimaryConfig['domains'][number];
export type SecondaryDomainConfig = SecondaryConfig['domains'][number];
/** False: no HTTP server. */
export type HttpConfig = PrimaryConfig['http'];
export type LogConfig = PrimaryConfig['log'];
export type HooksConfig = PrimaryConfig['hooks'];
export type WebhookConfig = NonNullable<HooksConfig['webhook']>;
export type { BootConfig, EmbeddedConfig, HypervisorConfig, QemuHypervisorConfig } from './hypervisor.js';
