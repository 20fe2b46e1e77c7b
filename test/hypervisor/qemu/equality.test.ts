// The promise of a checkpoint, looked at from outside: both hosts, Debian's kernel under load and a network with
// traffic. At each commit the standby's whole RAM is what the primary's was in the pause; and what it takes over with, RAM
// and device state, are those of the last commit.

import { once } from 'node:events';
import { readSync, writeSync } from 'node:fs';
import net from 'node:net';
import { expect } from 'chai';
import type { HypervisorConfig } from '../../../src/config/hypervisor.js';
import { createMemoryWitness } from '../../../src/failover/witnesses/memory.js';
import {
  openQemuSource,
  openQemuTarget,
  type DirtyWay,
  type QemuConfig,
  type QemuPrimary,
  type QemuTarget,
} from '../../../src/hypervisor/qemu/index.js';
import { managedQemu } from '../../../src/service/hypervisors.js';
import type { AgentService } from '../../../src/report/reports.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';
import { agentOn, neverOpened } from '../../service/hosts.js';
import { log } from '../../service/world.js';
import { ensureGuest, GUEST_TIMEOUT_MS, guestMachine } from '../../support/qemu.js';
import { until } from '../../support/until.js';
import { CounterClient } from './guest/machine.js';
import { ImageWatch } from './image-watch.js';
import { MIB } from '../support.js';
import { Screen, canTrack } from './support.js';
import { times } from '../../support/length.js';

const CHECKPOINTS = times(50, 200);
/** Where the standby is spoilt for a moment, to see that it is noticed: any page and any epoch will do. */
const SPOILT = { epoch: times(30, 150), pfn: 0x5432 };
const MEMORY_BYTES = 128 * MIB;
const CLIENTS = 16;
const LIMIT_MS = 240_000;

/** Bursts: some checkpoints have thousands of pages, others next to none. */
const LOAD = { workingSetPages: 8192, dirtyPages: 4096, tickMs: 100 };

function qemuConfig({ name, hypervisor }: { name: string; hypervisor: HypervisorConfig }): QemuConfig {
  if (hypervisor.kind !== 'qemu' || hypervisor.mode !== 'managed') throw new Error('configured otherwise');
  return managedQemu(name, hypervisor);
}

async function forwardedPort(domain: QemuPrimary): Promise<number> {
  const answer = await domain.machine.qmp.human('info usernet');
  return Number(/TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)/.exec(answer)?.[1]);
}

/** Clients of the guest's counter that never rest. What they were told is kept. */
class Traffic {
  readonly answers: string[] = [];
  readonly #clients: CounterClient[] = [];
  readonly #running: Promise<void>[] = [];
  #over = false;

  async begin(port: number): Promise<void> {
    for (let k = 0; k < CLIENTS; k++) {
      const socket = net.connect({ host: '127.0.0.1', port });
      await once(socket, 'connect');
      const client = new CounterClient(socket);
      this.#clients.push(client);
      this.#running.push(this.#ask(client));
    }
  }

  async end(): Promise<void> {
    this.#over = true;
    for (const client of this.#clients) await client.close();
    await Promise.all(this.#running);
  }

  async #ask(client: CounterClient): Promise<void> {
    for (;;) {
      const answer = await client.increment();
      if (answer === undefined && this.#over) return;
      this.answers.push(answer ?? 'lost');
      if (answer === undefined) return;
    }
  }
}

/** Flips a bit of the standby's RAM, or flips it back. */
function spoil(domain: QemuTarget, pfn: number): void {
  const octet = Buffer.alloc(1);
  const at = pfn * PAGE_SIZE + 1234;
  readSync(domain.machine.tracking.ramFd, octet, 0, 1, at);
  octet.writeUInt8(octet.readUInt8() ^ 0x10);
  writeSync(domain.machine.tracking.ramFd, octet, 0, 1, at);
}

describe('qemu: image equality', function () {
  this.timeout(GUEST_TIMEOUT_MS + 3 * LIMIT_MS);

  for (const dirty of ['compare', 'fuse'] satisfies DirtyWay[]) {
    it(`the standby is the guest at each of ${CHECKPOINTS} pauses under load (${dirty})`, async function () {
      const files = await ensureGuest();
      if (!files || !(await canTrack(dirty))) return this.skip();
      const hypervisor = {
        ...guestMachine(files, { ...LOAD, address: '10.0.2.15/24' }),
        memory: `${MEMORY_BYTES / MIB}MiB`,
        dirty,
        network: [{ id: 'lan', user: 'restrict=on,hostfwd=tcp:127.0.0.1:0-:7' }],
      };
      const watch = new ImageWatch(MEMORY_BYTES);
      const traffic = new Traffic();
      const sources: QemuPrimary[] = [];
      const targets: QemuTarget[] = [];
      const [primaryConsole, secondaryConsole] = [new Screen(), new Screen()];
      const registers = createMemoryWitness();
      const domains = [{ name: 'web', hypervisor, checkpoint: { intervalMs: 20, slab: '128MiB' } }];
      const primary = agentOn(
        'north',
        { port: 0, registers, domains },
        {
          log,
          openTarget: neverOpened,
          openSource: async (config) => {
            const source = watch.watch(await openQemuSource(qemuConfig(config)));
            sources.push(source);
            return source;
          },
          openConsole: () => primaryConsole,
        },
      );
      let secondary: AgentService | null = null;
      const pages: number[] = [];
      const commits: number[] = [];
      let begun = 0;
      try {
        await primary.start();
        primary.checkpoints$.subscribe(({ epoch, dirtyPages }) => (pages[epoch] = dirtyPages));
        secondary = agentOn(
          'south',
          { port: primary.port, registers, domains },
          {
            log,
            openTarget: async (config) => {
              const target = watch.watchTakeover(await openQemuTarget(qemuConfig(config)));
              targets.push(target);
              return target;
            },
            openConsole: () => secondaryConsole,
          },
        );
        secondary.commits$.subscribe(({ epoch }) => {
          const [target] = targets;
          if (!target) throw new Error('a commit without a standby');
          if (epoch === SPOILT.epoch) spoil(target, SPOILT.pfn);
          watch.committed(epoch, target);
          if (epoch === SPOILT.epoch) spoil(target, SPOILT.pfn);
          commits.push(epoch);
        });
        await secondary.start();
        await until('the guest ticks', () => primaryConsole.text.includes('tick 1 ok'), LIMIT_MS);
        const [source] = sources;
        if (!source) throw new Error('the guest ticks, and there is no domain');
        expect(source.machine.tracking.way).to.equal(dirty);
        await traffic.begin(await forwardedPort(source));
        begun = commits.length;
        watch.restartClock();
        await until('checkpoints', () => commits.length >= begun + CHECKPOINTS, LIMIT_MS);
        await traffic.end();
        await source.machine.close(); // QEMU is killed
        await until('the guest ticks on', () => /tick \d+ ok\r?\n/.test(secondaryConsole.text), LIMIT_MS);
      } finally {
        await traffic.end();
        await secondary?.stop();
        await primary.stop();
      }
      // Nothing differs but what was made to.
      expect(watch.differences).to.deep.equal([{ ...SPOILT, what: 'RAM' }]);
      expect(commits).to.deep.equal(commits.map((_, index) => index));
      expect([sources.length, targets.length]).to.deep.equal([1, 1]);
      expect(watch.takenOver).to.equal(commits.at(-1));
      // And it was not easy.
      const { answers } = traffic;
      const loaded = pages.slice(begun);
      const perSecond = Math.round(loaded.reduce((sum, count) => sum + count, 0) / watch.ranSeconds);
      console.log(
        `      ${perSecond} pages/s, at most ${Math.max(...loaded)} in a checkpoint; ${answers.length} answers`,
      );
      expect(perSecond).to.be.at.least(2000);
      expect(Math.max(...loaded)).to.be.at.least(2000);
      expect(answers.length).to.be.at.least(CHECKPOINTS);
      expect(answers.filter((answer) => !/^\d+$/.test(answer))).to.deep.equal([]);
      expect(new Set(answers).size).to.equal(answers.length);
      expect(primaryConsole.text + secondaryConsole.text).to.not.include('BAD');
    });
  }
});
