// File descriptors: a process may have so many (ulimit -n), and one that has them all fails in the midst of whatever it
// does next. So what a service needs is counted before it makes its first domain.
//
//   the process: Node, log, ports, and what comes to them     a domain: its files, sockets, threads, children, its link
//
// Counted in /proc/self/fd of agents with 1 and 3 domains; while a standby is filled anew there are two of it.

import { readFileSync } from 'node:fs';
import type { HypervisorConfig } from '../config/hypervisor.js';
import { codeOf } from '../errors.js';
import { ServiceError } from './error.js';
import type { Logger } from './log.js';

const OF_THE_PROCESS = 48;
/** Connections to the ports: 64 for HTTP, 16 in the handshake; and what is open for a moment only. */
const SPARE = 128;
const OF_A_DOMAIN: Readonly<Record<HypervisorConfig['kind'], number>> = { embedded: 6, qemu: 14 };

type Domains = readonly { readonly hypervisor: { readonly kind: HypervisorConfig['kind'] } }[];

/** Warns where it is tight. @throws ServiceError TOO_FEW_DESCRIPTORS */
export function checkDescriptors(domains: Domains, log: Logger, limit = descriptorLimit()): void {
  const ofDomains = domains.reduce((sum, { hypervisor }) => sum + OF_A_DOMAIN[hypervisor.kind], 0);
  const needed = OF_THE_PROCESS + ofDomains;
  const ample = OF_THE_PROCESS + SPARE + 2 * ofDomains;
  const facts = { limit, needed, ample, domains: domains.length };
  if (limit < needed) {
    throw new ServiceError(
      'TOO_FEW_DESCRIPTORS',
      `this process may have ${limit} files open, and needs ${needed} for ${domains.length} domains: ${raise(ample)}`,
      facts,
    );
  }
  if (limit < ample) log.warn(facts, `this process may have few files open: ${raise(ample)}`);
}

/** What came of having too few, with the limit and what to do; any other error as it is. */
export function nameDescriptorLimit(error: Error): Error {
  for (let cause: unknown = error; cause instanceof Error; cause = cause.cause) {
    if (codeOf(cause) !== 'EMFILE') continue;
    const limit = descriptorLimit();
    const message = `${error.message}; this process has all the ${limit} files open that it may have: ${raise(2 * limit)}`;
    return new ServiceError('TOO_FEW_DESCRIPTORS', message, { limit }, { cause: error });
  }
  return error;
}

function raise(ample: number): string {
  return `allow ${ample} (ulimit -n ${ample}; LimitNOFILE=${ample} of a systemd unit)`;
}

/** Infinity where it cannot be read: then nothing is refused. */
function descriptorLimit(): number {
  try {
    const [, soft] = /^Max open files\s+(\d+)/m.exec(readFileSync('/proc/self/limits', 'utf8')) ?? [];
    return soft === undefined ? Infinity : Number(soft);
  } catch {
    return Infinity;
  }
}
