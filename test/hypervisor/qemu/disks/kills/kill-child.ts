// An agent in a process of its own whose domain numbers what it writes: it tells its parent what its image is in each pause,
// after each commit, and when it is taken over; and when it comes to a point that its parent has named, something is killed.

import { readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { xxh3 } from '@node-rs/xxhash';
import { pino } from 'pino';
import type { DiskTarget } from '../../../../../src/hypervisor/port-disks.js';
import type { SourceDomain, TargetDomain } from '../../../../../src/hypervisor/port.js';
import { openQemuSource, openQemuTarget, type QemuConfig } from '../../../../../src/hypervisor/qemu/index.js';
import type { HypervisorConfig } from '../../../../../src/config/hypervisor.js';
import { managedQemu } from '../../../../../src/service/hypervisors.js';
import { beAgent, tell, type AgentChildStart } from '../../../../service/agent-child.js';
import { childrenOf } from '../../../../support/processes.js';
import { entryOf } from '../lab.js';
import { plainOf, sequencesIn } from './sequence.js';

export interface KillChildStart extends AgentChildStart {
  readonly image: string;
  readonly format: string;
  /** A directory: see plantable-worker.ts. */
  readonly plants: string;
}

export type Victim = 'agent' | 'qemu' | 'worker' | 'daemon' | 'keeper';
/** In the order in which a stream comes to them; on the owner's side, and on the standby's. */
export type Point =
  | ('keep' | 'copy' | 'seal')
  | ('begin' | 'write first' | 'committing first' | 'write' | 'committing' | 'committed')
  | ('taking' | 'taken' | 'started');

export interface Trap {
  readonly point: Point;
  /** It is passed so often before. */
  readonly skip: number;
  /** Here; null: the parent does it. */
  readonly victim: Victim | null;
}

export type KillChildMessage =
  | { readonly kind: 'hit' }
  | { readonly kind: 'image'; readonly when: When; readonly sum: string; readonly fault: string | null };
export type When = 'pause' | 'commit' | 'takeover';

/** Of the process, whose child it may be: 'worker' is its own. Whether there was one. */
export function killOf(agent: number, victim: Victim, plants: string): boolean {
  switch (victim) {
    case 'agent':
      process.kill(agent, 'SIGKILL');
      return true;
    case 'worker':
      writeFileSync(path.join(plants, 'die'), '');
      return true;
    case 'qemu':
      return killed(agent, 'qemu-system-');
    case 'daemon':
      return killed(agent, 'qemu-storage-daemon');
    case 'keeper':
      return killed(agent, 'keeper.js');
  }
}

function killed(agent: number, name: string): boolean {
  const found = childrenOf(agent).filter((pid) => commandOf(pid).includes(name));
  for (const pid of found) process.kill(pid, 'SIGKILL');
  return found.length > 0;
}

function commandOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'latin1');
  } catch {
    return ''; // it has just ended
  }
}

interface DomainConfig {
  readonly name: string;
  readonly hypervisor: HypervisorConfig;
}

class Watched {
  readonly #image: string;
  readonly #format: string;
  readonly #plants: string;
  readonly #seen = new WeakSet<object>();
  #trap: { -readonly [Key in keyof Trap]: Trap[Key] } | null = null;

  constructor({ image, format, plants }: KillChildStart) {
    this.#image = image;
    this.#format = format;
    this.#plants = plants;
  }

  set(trap: Trap): void {
    this.#trap = { ...trap };
  }

  async source({ name, hypervisor }: DomainConfig): Promise<SourceDomain> {
    return this.watched(await openQemuSource(await this.#config(name, hypervisor)));
  }

  async target({ name, hypervisor }: DomainConfig, signal?: AbortSignal): Promise<TargetDomain> {
    return this.#standby(await openQemuTarget(await this.#config(name, hypervisor), signal));
  }

  async #config(name: string, hypervisor: HypervisorConfig): Promise<QemuConfig> {
    if (hypervisor.kind !== 'qemu' || hypervisor.mode !== 'managed') throw new Error('it is no QEMU of ours');
    const entry = await entryOf(this.#plants, false);
    return { ...managedQemu(name, hypervisor), replication: { entry } };
  }

  watched(domain: SourceDomain): SourceDomain {
    if (this.#seen.has(domain)) return domain;
    this.#seen.add(domain);
    const { disks } = domain;
    if (!disks) throw new Error('it has no disks');
    const suspend = domain.suspend.bind(domain);
    domain.suspend = async () => {
      await suspend();
      this.#look('pause');
    };
    const keep = disks.keep.bind(disks);
    disks.keep = () => this.#at('keep', keep);
    const seal = disks.seal.bind(disks);
    disks.seal = () => this.#at('seal', seal);
    const copy = disks.copy.bind(disks);
    disks.copy = (order) => copy({ ...order, take: (copied) => this.#at('copy', () => order.take(copied)) });
    return domain;
  }

  #standby(domain: TargetDomain & { disks?: DiskTarget }): TargetDomain {
    if (domain.disks) this.#images(domain.disks);
    const start = domain.start.bind(domain);
    domain.start = async () => {
      await start();
      this.#pass('started');
    };
    const source = domain.source.bind(domain);
    domain.source = () => this.watched(source());
    const another = domain.another?.bind(domain);
    if (another) domain.another = async () => this.#standby(await another());
    return domain;
  }

  #images(disks: DiskTarget): void {
    if (this.#seen.has(disks)) return;
    this.#seen.add(disks);
    let isFirst = true;
    const begin = disks.begin.bind(disks);
    disks.begin = (how) => {
      isFirst = true;
      return this.#at('begin', () => begin(how));
    };
    const write = disks.write.bind(disks);
    disks.write = (...given) => this.#at(isFirst ? 'write first' : 'write', () => write(...given));
    const committed = disks.committed.bind(disks);
    disks.committed = async (point) => {
      await this.#at(isFirst ? 'committing first' : 'committing', () => committed(point));
      isFirst = false;
      // Other formats keep in memory what they know of their files.
      if (this.#format === 'raw') this.#look('commit');
      this.#pass('committed');
    };
    const taken = disks.taken.bind(disks);
    disks.taken = async () => {
      await this.#at('taking', taken);
      this.#look('takeover');
      this.#pass('taken');
    };
  }

  #look(when: When): void {
    const octets = plainOf(this.#image, this.#format);
    let fault: string | null = null;
    try {
      const { last, whole } = sequencesIn(octets);
      if (last !== whole) fault = `gaps from ${whole} to ${last}`;
    } catch (error) {
      fault = String(error);
    }
    say({ kind: 'image', when, sum: xxh3.xxh128(octets).toString(16), fault });
  }

  #at<T>(point: Point, work: () => T): T {
    this.#pass(point);
    return work();
  }

  #pass(point: Point): void {
    if (this.#trap?.point !== point || this.#trap.skip-- > 0) return;
    const { victim } = this.#trap;
    this.#trap = null;
    if (victim !== 'agent') say({ kind: 'hit' });
    if (victim !== null) killOf(process.pid, victim, this.#plants);
  }
}

function say(message: KillChildMessage): void {
  tell({ kind: 'more', message });
}

let watched: Watched | null = null;
beAgent({
  dependencies: (start) => {
    const watching = (watched = new Watched(start as KillChildStart));
    const log = pino(
      { level: process.env['ROMULUS_TEST_LOG'] ?? 'silent', name: start.host },
      pino.destination(2),
    );
    return {
      log,
      openSource: (config) => watching.source(config),
      openTarget: (config, signal) => watching.target(config, signal),
    };
  },
  asked: (request) => watched?.set(request as Trap),
});
