// Two agents, and a guest with several writers: whenever its standby has committed a checkpoint, the standby's image is
// the owner's as of that checkpoint's pause, and so it is when that is taken over; and again the other way round.

import { readFileSync } from 'node:fs';
import { expect } from 'chai';
import { codeOf } from '../../../../src/errors.js';
import type { SourceDomain, TargetDomain } from '../../../../src/hypervisor/port.js';
import { openQemuSource, openQemuTarget, type QemuConfig } from '../../../../src/hypervisor/qemu/index.js';
import type { HostName } from '../../../service/agent-pair.js';
import { TwoAgents } from '../../../service/two-agents.js';
import { Cleanup } from '../../../support/cleanup.js';
import { LONG } from '../../../support/length.js';
import { processesWith } from '../../../support/processes.js';
import { until } from '../../../support/until.js';
import { needQemu } from '../support.js';
import { imageOf, writersArguments } from './lab.js';
import { needQemuTools } from './support.js';

const PATIENCE_MS = 40_000;
const COMMITS = 25;
const KILLS = LONG ? 20 : 2;

class Hosts {
  two: TwoAgents | null = null;
  compared = 0;
  different = 0;
  readonly #images: Readonly<Record<HostName, string>>;
  /** Of the owner's image, as of each of its pauses. */
  #pauses: Buffer[] = [];
  #streamUuid = '';
  #standby: HostName = 'beta';

  static async start(cleanup: Cleanup): Promise<Hosts> {
    const hosts = new Hosts({ alpha: await imageOf(cleanup, 'raw'), beta: await imageOf(cleanup, 'raw') });
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
        if (event.phase === 'started') hosts.#compare(host, event.streamUuid, event.epoch);
      });
    }
    return hosts;
  }

  private constructor(images: Readonly<Record<HostName, string>>) {
    this.#images = images;
  }

  async commits(): Promise<void> {
    await until('commits', () => this.compared >= COMMITS, PATIENCE_MS);
    expect(this.different).to.equal(0);
    expect(this.#pauses[1]?.equals(this.#pauses[COMMITS - 1] ?? Buffer.alloc(0)), 'it writes').to.equal(
      false,
    );
  }

  /** From here on that of `host` is a standby's. */
  turns(host: HostName): void {
    this.#standby = host;
    [this.#pauses, this.compared, this.#streamUuid] = [[], 0, ''];
  }

  killOwner(owner: HostName): void {
    const pids = processesWith(this.#images[owner]);
    expect(pids.length).to.be.greaterThan(0);
    for (const pid of pids) process.kill(pid, 'SIGKILL');
  }

  #config(name: string, host: HostName): QemuConfig {
    return {
      ...{ name, memoryBytes: 16 * 2 ** 20, accelerator: 'tcg', cpus: 2, dirty: 'compare' },
      arguments: writersArguments(`file=${this.#images[host]},format=raw`),
    };
  }

  #watched(domain: SourceDomain, host: HostName): SourceDomain {
    const suspend = domain.suspend.bind(domain);
    domain.suspend = async () => {
      await suspend();
      this.#pauses.push(readFileSync(this.#images[host]));
    };
    return domain;
  }

  async #target(name: string): Promise<TargetDomain> {
    const host = this.#standby;
    const target: TargetDomain = await openQemuTarget(this.#config(name, host));
    const source = target.source.bind(target);
    let watched: SourceDomain | null = null;
    target.source = () => (watched ??= this.#watched(source(), host));
    return target;
  }

  /** Of the first stream of each direction: its epochs are the pauses. */
  #compare(host: HostName, streamUuid: string, epoch: number): void {
    if (this.#streamUuid === '') this.#streamUuid = streamUuid;
    const pause = this.#pauses[epoch];
    if (streamUuid !== this.#streamUuid || !pause) return;
    this.compared++;
    if (!readFileSync(this.#images[host]).equals(pause)) this.different++;
  }
}

describe('qemu disks: two agents', function () {
  this.timeout((1 + KILLS) * PATIENCE_MS);
  const cleanup = new Cleanup();
  before(async function () {
    await needQemu(this);
    await needQemuTools(this);
  });
  afterEach(() => cleanup.run());

  it('each commit is the disk as of its pause; also the other way round, after a switchover', async () => {
    const hosts = await Hosts.start(cleanup);
    await hosts.commits();
    // Where both hosts are one process that compares images, neither is always on time: asked again.
    for (let isSwitched = false; !isSwitched;) {
      await hosts.two?.paired();
      const code = await hosts.two
        ?.agent('alpha')
        .switchover('web')
        .then(() => null, codeOf);
      if (code !== null) expect(code).to.equal('NOT_PAIRED');
      isSwitched = code === null;
    }
    hosts.turns('alpha');
    await hosts.two?.paired();
    await hosts.commits();
  });

  it(`the owner’s QEMU is killed, ${KILLS} times: what is taken over is one moment, and its image is used again`, async () => {
    const hosts = await Hosts.start(cleanup);
    let owner: HostName = 'alpha';
    for (let kill = 0; kill < KILLS; kill++) {
      await hosts.commits();
      await hosts.two?.paired();
      const { compared } = hosts;
      hosts.killOwner(owner);
      const other: HostName = owner === 'alpha' ? 'beta' : 'alpha';
      await until('it is taken over', () => hosts.two?.owner === other, PATIENCE_MS);
      expect(hosts.compared, 'also what is taken over').to.be.greaterThan(compared);
      expect(hosts.different).to.equal(0);
      hosts.turns(owner);
      owner = other;
    }
    await hosts.two?.paired();
    await hosts.commits();
  });
});
