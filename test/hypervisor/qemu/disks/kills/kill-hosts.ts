// Two hosts, each with an agent in a process of its own and a link that can be cut, and one who hears their guest and looks
// at their images: what was heard is kept, and what a standby has committed, or is taken over, is one of the owner's pauses.

import { rmSync } from 'node:fs';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { AgentPair, HOSTS, PATIENCE_MS, type HostName } from '../../../../service/agent-pair.js';
import { Proxy } from '../../../../service/proxy.js';
import type { Cleanup } from '../../../../support/cleanup.js';
import { freePorts } from '../../../../support/ports.js';
import { until } from '../../../../support/until.js';
import { fileURLToPath } from 'node:url';
import { qemuImg } from '../support.js';
import { killOf, type KillChildMessage, type Trap, type Victim } from './kill-child.js';
import { DISK_BYTES, sequenceArguments } from './sequence.js';

const CHILD = fileURLToPath(new URL('./kill-child.js', import.meta.url));
/** Of two looks at all of the disk, the second was begun later than now. */
const SAID = 256;
/** What a process has said before it was killed may still be on its way. */
const MATCH_MS = 5000;
/** Behind which no commit is. */
const PAUSES_MAX = 5000;

interface HostFiles {
  readonly image: string;
  readonly format: string;
  readonly plants: string;
}

export class KillHosts {
  readonly pair: AgentPair;
  readonly faults: string[] = [];
  /** The highest number that was heard to be on the disk. */
  heard = 0;
  boots = 0;
  takeovers = 0;
  commits = 0;
  /** Traps that something came to. */
  hits = 0;
  readonly #files: Readonly<Record<HostName, HostFiles>>;
  readonly #proxies: Readonly<Record<HostName, Proxy>>;
  readonly #rest: Record<HostName, string> = { alpha: '', beta: '' };
  readonly #killed = new Set<HostName>();
  /** The sums of the owner's image in its pauses. */
  readonly #pauses = new Set<string>();
  #unmatched: string[] = [];

  static async start(cleanup: Cleanup, formats: Readonly<Record<HostName, string>>): Promise<KillHosts> {
    const directory = await cleanup.directory();
    const filesOf = async (host: HostName): Promise<HostFiles> => ({
      image: path.join(directory, `${host}.${formats[host]}`),
      format: formats[host],
      plants: await cleanup.directory(),
    });
    const files = { alpha: await filesOf('alpha'), beta: await filesOf('beta') };
    // The first owner's; the standby's is made.
    await qemuImg('create', '-q', '-f', formats.alpha, files.alpha.image, String(DISK_BYTES));
    const [alpha = 0, beta = 0] = await freePorts(2);
    const ports = { alpha, beta };
    const proxies = { alpha: new Proxy(alpha), beta: new Proxy(beta) };
    const doors = { alpha: await proxies.alpha.listen(), beta: await proxies.beta.listen() };
    for (const host of HOSTS) cleanup.add(() => proxies[host].close());
    const portOf = (of: HostName, seenBy: HostName) => (of === seenBy ? ports : doors)[of];
    const cluster = (host: HostName) => clusterOf(directory, files[host], (of) => portOf(of, host));
    const hosts = new KillHosts(directory, cluster, files, proxies);
    cleanup.add(() => hosts.pair.close());
    for (const host of HOSTS) hosts.pair.begin(host);
    await hosts.pair.paired();
    return hosts;
  }

  private constructor(
    directory: string,
    cluster: (host: HostName) => object,
    files: Readonly<Record<HostName, HostFiles>>,
    proxies: Readonly<Record<HostName, Proxy>>,
  ) {
    this.#files = files;
    this.#proxies = proxies;
    this.pair = new AgentPair({
      ...{
        directory,
        program: CHILD,
        more: (host: HostName) => ({ ...files[host], cluster: cluster(host) }),
      },
      said: (host, text) => this.#hear(host, text),
      heard: (host, message) => this.#learn(host, message as KillChildMessage),
    });
  }

  trap(host: HostName, trap: Trap): void {
    this.pair.ask(host, trap);
  }

  /** Whether there was one. */
  kill(host: HostName, victim: Victim): boolean {
    const pid = this.pair.pidOf(host);
    if (victim === 'agent') this.#killed.add(host);
    return pid !== null && killOf(pid, victim, this.#files[host].plants);
  }

  /** Agents that were killed are begun again, and exports served. */
  async revive(): Promise<void> {
    for (const host of HOSTS) {
      rmSync(path.join(this.#files[host].plants, 'die'), { force: true });
      // Of one that was killed just now it may not have been heard yet.
      if (!this.#killed.delete(host) && this.pair.pidOf(host) !== null) continue;
      await this.pair.kill(host);
      this.#rest[host] = ''; // what it has not finished saying it never will
      this.pair.begin(host);
    }
  }

  cut(): Promise<void> {
    for (const host of HOSTS) this.#proxies[host].cut();
    return Promise.resolve();
  }

  /** A standby that dies, with its image or without, and whose owner knows that: what dies with it then would be both copies. */
  async lose(standby: HostName, image: 'kept' | 'gone'): Promise<void> {
    await this.pair.kill(standby);
    this.#rest[standby] = '';
    const { image: file } = this.#files[standby];
    if (image === 'gone') for (const each of [file, `${file}.romulus`]) rmSync(each, { force: true });
    const deadline = performance.now() + PATIENCE_MS;
    while (!(await this.pair.isAlone())) {
      if (performance.now() > deadline) throw new Error('not in time: its owner is alone');
      await sleep(5);
    }
  }

  /** The guest has looked at all of its disk, and more than once since. */
  async speaks(): Promise<void> {
    const { heard } = this;
    await until('the guest goes on', () => this.heard >= heard + SAID || this.faults.length > 0, PATIENCE_MS);
  }

  /** All that was committed, or taken over, was a pause of the owner's. */
  async matched(): Promise<void> {
    const left = () => (this.#unmatched = this.#unmatched.filter((sum) => !this.#pauses.has(sum)));
    try {
      await until('each commit is a pause', () => left().length === 0, MATCH_MS);
    } catch {
      this.faults.push(`${this.#unmatched.length} images are of no pause`);
    }
    this.#unmatched = [];
  }

  #hear(host: HostName, text: string): void {
    const lines = (this.#rest[host] + text).split('\n');
    this.#rest[host] = lines.pop() ?? '';
    for (const line of lines) {
      const [, what, last = '', whole = ''] = /^(ok|boot) (\d+) ?(\d*)$/.exec(line) ?? [];
      if (line.includes('BAD') || line.startsWith('error')) this.faults.push(`${host}: ${line}`);
      if (what === undefined) continue;
      if (what === 'boot') this.boots++;
      const number = Number(what === 'boot' ? whole : last);
      const isKept = what === 'boot' ? number >= this.heard : number > this.heard;
      if (!isKept) this.faults.push(`${host}: ${line}, after ${this.heard}`);
      this.heard = number;
    }
  }

  #learn(host: HostName, message: KillChildMessage): void {
    if (message.kind === 'hit') {
      this.hits++;
      return;
    }
    const { when, sum, fault } = message;
    if (fault !== null) this.faults.push(`${host}, ${when}: ${fault}`);
    if (when === 'pause') {
      this.#pauses.add(sum);
      const [oldest] = this.#pauses;
      if (oldest !== undefined && this.#pauses.size > PAUSES_MAX) this.#pauses.delete(oldest);
    } else {
      this.#unmatched.push(sum);
      if (when === 'takeover') this.takeovers++;
      else this.commits++;
    }
  }
}

function clusterOf(
  directory: string,
  { image, format }: HostFiles,
  portOf: (of: HostName) => number,
): object {
  return {
    witness: { kind: 'file', directory },
    hosts: {
      alpha: { address: '127.0.0.1', port: portOf('alpha') },
      beta: { address: '127.0.0.1', port: portOf('beta') },
    },
    http: false,
    domains: [
      {
        name: 'web',
        hosts: HOSTS,
        hypervisor: {
          ...{ kind: 'qemu', memory: '16MiB', accelerator: 'tcg', dirty: 'compare' },
          arguments: sequenceArguments(`file=${image},format=${format}`),
          disks: { disk: { size: `${DISK_BYTES / 2 ** 20}MiB` } },
        },
        checkpoint: { intervalMs: 20 },
        // A busy machine is silent for a while; who is killed is missed at once.
        heartbeat: { intervalMs: 100, timeoutMs: 3000 },
      },
    ],
  };
}
