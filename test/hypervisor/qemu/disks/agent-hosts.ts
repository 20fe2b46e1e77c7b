// Two hosts, each with its agent and an image of each of the guest's disks: whenever the standby has committed a checkpoint,
// its images are compared with the owner's as of that checkpoint's pause; and so they are when it takes over.

import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import type { SourceDomain, TargetDomain } from '../../../../src/hypervisor/port.js';
import { openQemuSource, openQemuTarget, type QemuConfig } from '../../../../src/hypervisor/qemu/index.js';
import type { HostName } from '../../../service/agent-pair.js';
import { TwoAgents } from '../../../service/two-agents.js';
import type { Cleanup } from '../../../support/cleanup.js';
import { processesWith } from '../../../support/processes.js';
import { until } from '../../../support/until.js';
import { qemuImg } from './support.js';

export const PATIENCE_MS = 40_000;
export const COMMITS = 25;

export interface HostImage {
  readonly file: string;
  readonly format: 'raw' | 'qcow2';
}

/** Of each host: an image of each disk, in the same order. */
export type HostImages = Readonly<Record<HostName, readonly HostImage[]>>;

export interface HostsOptions {
  readonly images: HostImages;
  /** Of a QEMU with these images: its guest and its disks. */
  readonly argumentsOf: (images: readonly HostImage[]) => readonly string[];
  readonly machine?: string;
}

/** As the guest sees it. While nobody writes to it, or has a part of it in his memory only. */
async function contentOf({ file, format }: HostImage): Promise<Buffer> {
  if (format === 'raw') return readFileSync(file);
  const plain = `${file}.raw`;
  await qemuImg('convert', '-U', '-f', format, '-O', 'raw', file, plain);
  return readFileSync(plain);
}

export class Hosts {
  two: TwoAgents | null = null;
  compared = 0;
  different = 0;
  /** Takeovers, of which all disks were compared. */
  takeovers = 0;
  readonly #options: HostsOptions;
  /** Of the owner's images, as of each pause of the present stream. */
  #pauses: (readonly Buffer[])[] = [];
  #streamUuid = '';
  #standby: HostName = 'beta';
  /** What is taken over is as of this pause. */
  #takenOver: readonly Buffer[] | null = null;

  static async start(cleanup: Cleanup, options: HostsOptions): Promise<Hosts> {
    const hosts = new Hosts(options);
    const two = await TwoAgents.start(cleanup, {
      hypervisor: { kind: 'qemu', memory: '16MiB' },
      hypervisors: {
        openSource: async ({ name }) =>
          hosts.#watched(await openQemuSource(hosts.#config(name, 'alpha')), 'alpha'),
        openTarget: ({ name }) => hosts.#target(name),
      },
    });
    hosts.two = two;
    for (const host of ['alpha', 'beta'] as const) {
      two.agent(host).commits$.subscribe(({ streamUuid, epoch }) => hosts.#compare(host, streamUuid, epoch));
      two.agent(host).failover$.subscribe((event) => {
        if (event.phase !== 'started') return;
        hosts.#compare(host, event.streamUuid, event.epoch);
        const ofThisStream = event.streamUuid === hosts.#streamUuid;
        hosts.#takenOver = (ofThisStream && hosts.#pauses[event.epoch]) || null;
      });
    }
    return hosts;
  }

  private constructor(options: HostsOptions) {
    this.#options = options;
  }

  async commits(count = COMMITS): Promise<void> {
    await until('commits', () => this.compared >= count, PATIENCE_MS);
    expect(this.different).to.equal(0);
    const isWritten = (): boolean => {
      const [first, last] = [this.#pauses[0] ?? [], this.#pauses.at(-1) ?? []];
      return first.length > 0 && first.every((disk, index) => last[index]?.equals(disk) === false);
    };
    await until('each is written to', isWritten);
  }

  /** From here on that of `host` is a standby's. */
  turns(host: HostName): void {
    this.#standby = host;
    [this.#pauses, this.compared, this.#streamUuid] = [[], 0, ''];
  }

  killOwner(owner: HostName): void {
    const [image] = this.#options.images[owner];
    const pids = image ? processesWith(image.file) : [];
    expect(pids.length).to.be.greaterThan(0);
    for (const pid of pids) process.kill(pid, 'SIGKILL');
  }

  #config(name: string, host: HostName): QemuConfig {
    const { images, argumentsOf, machine } = this.#options;
    return {
      ...{ name, memoryBytes: 16 * 2 ** 20, accelerator: 'tcg', cpus: 2, dirty: 'compare' },
      ...(machine !== undefined && { machine }),
      arguments: argumentsOf(images[host]),
    };
  }

  #watched(domain: SourceDomain, host: HostName): SourceDomain {
    const suspend = domain.suspend.bind(domain);
    domain.suspend = async () => {
      await suspend();
      this.#pauses.push(await Promise.all(this.#options.images[host].map(contentOf)));
    };
    const { disks } = domain;
    const keep = disks?.keep.bind(disks);
    if (disks && keep) {
      // A stream begins, and its epochs with it.
      disks.keep = () => {
        [this.#pauses, this.#streamUuid] = [[], ''];
        return keep();
      };
    }
    return domain;
  }

  async #target(name: string): Promise<TargetDomain> {
    const host = this.#standby;
    const target: TargetDomain = await openQemuTarget(this.#config(name, host));
    const source = target.source.bind(target);
    let watched: SourceDomain | null = null;
    target.source = () => (watched ??= this.#watched(source(), host));
    const { disks } = target;
    const taken = disks?.taken.bind(disks);
    if (disks && taken) {
      disks.taken = async () => {
        await taken();
        await this.#compareTakenOver(host);
      };
    }
    return target;
  }

  /** What formats other than raw keep in memory is not seen. */
  #compare(host: HostName, streamUuid: string, epoch: number): void {
    if (this.#streamUuid === '') this.#streamUuid = streamUuid;
    const pause = this.#pauses[epoch];
    if (streamUuid !== this.#streamUuid || !pause) return;
    this.compared++;
    for (const [index, { file, format }] of this.#options.images[host].entries()) {
      if (format === 'raw' && pause[index]?.equals(readFileSync(file)) !== true) this.different++;
    }
  }

  /** Nobody has the images open, and the guest does not run yet. */
  async #compareTakenOver(host: HostName): Promise<void> {
    const pause = this.#takenOver;
    this.#takenOver = null;
    if (pause === null) return;
    this.takeovers++;
    for (const [index, image] of this.#options.images[host].entries()) {
      if (pause[index]?.equals(await contentOf(image)) !== true) this.different++;
    }
  }
}
