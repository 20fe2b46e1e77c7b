// The etcd of a cluster in a lab, which can stand still, be slow, or be heard by nobody.

import type { ChildProcess } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import type { Register } from '../../src/failover/register.js';
import { SHARED, stoppableOf, type Lab } from '../hypervisor/qemu/lab.js';
import { stopProcesses } from '../support/processes.js';
import { until } from '../support/until.js';
import { ADDRESS_OF } from './network.js';
import type { ProxyOrder } from './witness-proxy.js';

const PROXY = fileURLToPath(new URL('./witness-proxy.js', import.meta.url));
const HISTORY = fileURLToPath(new URL('./register-history.js', import.meta.url));
const PORT = 2379;
const PEER_PORT = 2380;
/** Where the hosts ask. */
const PROXY_PORT = 2390;
const START_TIMEOUT_MS = 30_000;
const DIRECT = `http://127.0.0.1:${PORT}`;

export const ENDPOINT = `http://${ADDRESS_OF.witness}:${PROXY_PORT}`;

export class Witness {
  readonly #lab: Lab;
  readonly #etcd: ChildProcess;
  readonly #proxy: ChildProcess;

  private constructor(lab: Lab, etcd: ChildProcess, proxy: ChildProcess) {
    this.#lab = lab;
    this.#etcd = etcd;
    this.#proxy = proxy;
  }

  /** `program`: the etcd. Ends with the lab. */
  static async open(lab: Lab, program: string): Promise<Witness> {
    const peer = `http://127.0.0.1:${PEER_PORT}`;
    const args = [
      ...['--name', 'w', '--data-dir', `${SHARED}/etcd`, '--logger', 'zap'],
      ...['--listen-client-urls', DIRECT, '--advertise-client-urls', DIRECT],
      ...[
        '--listen-peer-urls',
        peer,
        '--initial-advertise-peer-urls',
        peer,
        '--initial-cluster',
        `w=${peer}`,
      ],
    ];
    const etcd = lab.spawnStoppable('witness', program, args, ['ignore', 'ignore', 'pipe']);
    const way = [PROXY, ADDRESS_OF.witness, String(PROXY_PORT), String(PORT)];
    const proxy = lab.spawn('witness', process.execPath, way, ['ignore', 'ignore', 'inherit', 'ipc']);
    let said = '';
    let ready = false;
    etcd.stderr?.on('data', (text: Buffer) => (said = (said + text.toString()).slice(-65_536)));
    proxy.once('message', () => (ready = true));
    await until('etcd', () => ready && said.includes('serving client traffic'), START_TIMEOUT_MS);
    return new Witness(lab, etcd, proxy);
  }

  /** It answers nobody until it goes on; then it does what it was asked for meanwhile. */
  stop(): Promise<void> {
    return stopProcesses([stoppableOf(this.#etcd)]);
  }

  goOn(): void {
    process.kill(stoppableOf(this.#etcd), 'SIGCONT');
  }

  /** It does what it is asked for at once, and says so later; null: never. */
  answersAfter(delayMs: ProxyOrder['delayMs']): void {
    this.#proxy.send({ delayMs });
  }

  /** All that the register of the domain has been. Not while it is stopped. */
  async history(domain: string): Promise<readonly Register[]> {
    const said = await this.#lab.run('witness', process.execPath, HISTORY, DIRECT, domain);
    return JSON.parse(said) as Register[];
  }
}
