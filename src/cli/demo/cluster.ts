// The one file of the demo's two hosts, as a user would write it. All that the agents make lies in the demo's directory.

import { randomInt } from 'node:crypto';
import { once } from 'node:events';
import { createServer } from 'node:net';
import { codeOf, RomulusError } from '../../errors.js';
import type { DemoMachine } from './machine.js';

/** The first of the domain's hosts starts it. */
export const DEMO_HOSTS = ['alpha', 'beta'] as const;
export type DemoHost = (typeof DEMO_HOSTS)[number];

export const DOMAIN = 'demo';
/** In the demo's directory: all that the machine says on alpha, before it is held. */
export const TAP = 'said-on-alpha';
/** In the demo's directory: the witness. */
export const WITNESS = 'witness';

const ADDRESS = '127.0.0.1';
/** Ports that the agents' metrics get if they are free; else any. */
const PREFERRED_HTTP_PORTS = { alpha: 9300, beta: 9301 };
/** Below those that the system gives to connections: nobody else has one by chance while its agent is down. */
const PORTS = { min: 10_000, max: 30_000 };
const PORT_ATTEMPTS = 100;

/** Relative paths: to the file's directory. @throws RomulusError NO_PORT */
export async function demoCluster(machine: DemoMachine, intervalMs: number): Promise<object> {
  const hosts: Record<string, object> = {};
  for (const host of DEMO_HOSTS) {
    const http = { port: (await isFree(PREFERRED_HTTP_PORTS[host])) ? PREFERRED_HTTP_PORTS[host] : 0 };
    hosts[host] = { address: ADDRESS, port: await freePort(), http };
  }
  return {
    witness: { kind: 'file', directory: WITNESS },
    hosts,
    token: 'token',
    control: '{host}.sock',
    log: { level: 'info', format: 'json' },
    domains: [
      {
        name: DOMAIN,
        hosts: { alpha: { output: { tap: TAP } }, beta: {} },
        hypervisor: machine.hypervisor,
        // It would have said a lot before beta has started.
        start: 'with-standby',
        checkpoint: { intervalMs },
        output: { console: 'stdout' },
      },
    ],
  };
}

/** @throws RomulusError NO_PORT */
export async function freePort(): Promise<number> {
  for (let attempt = 0; attempt < PORT_ATTEMPTS; attempt++) {
    const port = randomInt(PORTS.min, PORTS.max);
    if (await isFree(port)) return port;
  }
  throw new RomulusError('NO_PORT', `no free port was found from ${PORTS.min} to ${PORTS.max}`);
}

/** Nobody listens there. */
async function isFree(port: number): Promise<boolean> {
  const probe = createServer();
  try {
    probe.listen(port, ADDRESS);
    await once(probe, 'listening');
    return true;
  } catch (error) {
    if (codeOf(error) === 'EADDRINUSE') return false;
    throw error;
  } finally {
    if (probe.listening) await new Promise((resolve) => probe.close(resolve));
  }
}
