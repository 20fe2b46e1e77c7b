// The disk of a real machine: its guest writes and checks it, its standby's is the same at each checkpoint, and what is
// broken is found by both.

import { randomBytes } from 'node:crypto';
import { rm, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { CHUNK_BYTES } from '../../../src/disk/dirty-map.js';
import { builtinGuestFile } from '../../../src/hypervisor/embedded/config.js';
import {
  openEmbeddedSource,
  openEmbeddedTarget,
  type EmbeddedConfig,
} from '../../../src/hypervisor/embedded/index.js';
import type { Domain, SourceDomain, TargetDomain } from '../../../src/hypervisor/port.js';
import { temporaryDirectory } from '../../support/temporary.js';
import { Protection } from '../protection.js';
import { Console, MIB, expectCode, successiveTicksOf } from '../support.js';
import { builtin, diskSums } from './support.js';

const BLOCK_BYTES = 512;
const load = { workingSetPages: 64, dirtyPages: 8, tickMs: 5 };

describe('embedded: the disk', function () {
  this.timeout(30_000);
  const machines: Domain[] = [];
  const keep = <T extends Domain>(machine: T): T => {
    machines.push(machine);
    return machine;
  };
  afterEach(async () => {
    for (const machine of machines.splice(0)) await machine.destroy();
  });

  async function running(config: EmbeddedConfig) {
    const source = keep(await openEmbeddedSource(config));
    const screen = new Console(source);
    await source.start();
    return { source, screen };
  }

  /** With a machine of this configuration whose disk is an image of noise. */
  async function withNoise(bytes: number, use: (config: EmbeddedConfig) => Promise<void>): Promise<void> {
    const folder = await temporaryDirectory('romulus-disk-');
    try {
      const hda = join(folder, 'hda');
      await writeFile(hda, randomBytes(bytes));
      const commandLine = `pages=64 dirty=8 tick_ms=5 disk=4`;
      const guest = { kind: 'image', multiboot: builtinGuestFile, hda, commandLine } as const;
      await use({ name: 'noise', memoryBytes: 4 * MIB, guest });
    } finally {
      await rm(folder, { recursive: true });
    }
  }

  it('is written and checked by the guest, over and over; what it writes is counted', async () => {
    const { source, screen } = await running(builtin({ ...load, diskBlocks: 16 }, 4 * MIB));
    await screen.until(() => screen.ticks().length >= 30);
    await source.suspend();
    const [{ requests, writtenBytes, lost } = expect.fail('no figures')] = source.disks?.figures ?? [];
    expect(requests).to.be.at.least(60);
    expect(writtenBytes).to.equal(requests * BLOCK_BYTES);
    expect(lost).to.equal(null);
    expect(screen.text).to.not.include('BAD');
  });

  it('of noise is bad for the guest, which takes it to be blank', async () => {
    await withNoise(4 * BLOCK_BYTES, async (config) => {
      const { screen } = await running(config);
      await screen.until(() => screen.ticks().length > 2);
      expect(screen.text, 'until each block was written').to.match(/^tick 1 BAD \d+\n/);
    });
  });

  it('smaller than the guest was told ends it', async () => {
    await withNoise(2 * BLOCK_BYTES, async (config) => {
      const { screen } = await running(config);
      await screen.untilText('disk failed\n');
    });
  });

  it('is not there where the configuration names none', async () => {
    const { source } = await running(builtin(load, 4 * MIB));
    expect(source.disks).to.equal(undefined);
  });

  it('is no part of the context', async () => {
    await withNoise(2 * MIB + 100, async (config) => {
      const { source, screen } = await running(config);
      await screen.until(() => screen.text.length > 100);
      await source.suspend();
      expect(source.disks?.disks).to.deep.equal([{ id: 'hda', bytes: 2 * MIB + BLOCK_BYTES }]);
      expect((await source.hvmContext()).length).to.be.below(128 * 1024);
    });
  });

  it('of a machine is not restored into one without', async () => {
    const { source } = await running(builtin({ ...load, diskBlocks: 16 }, 4 * MIB));
    await source.suspend();
    const target = keep(await openEmbeddedTarget(builtin(load, 4 * MIB)));
    await expectCode(target.setHvmContext(await source.hvmContext()), 'BAD_CONTEXT');
  });

  for (const [name, using] of [
    ['of zeroes', (use) => use(builtin({ ...load, diskBlocks: 300 }, 4 * MIB))],
    ['of noise', (use) => withNoise(10 * CHUNK_BYTES + 700, use)],
  ] satisfies [string, (use: (config: EmbeddedConfig) => Promise<void>) => Promise<void>][]) {
    it(`${name} is that of the machine at each checkpoint, over three takeovers`, () =>
      using(async (config) => {
        let { source, screen } = await running(config);
        let said = '';
        for (let generation = 0; generation < 3; generation++) {
          await screen.until(() => screen.text.length > 40);
          const target = keep(await openEmbeddedTarget(config));
          expect(target.disks?.isBlank(0)).to.equal(name === 'of zeroes');
          const targetScreen = new Console(target);
          const protection = await Protection.begin(source, target);
          let saidThen = '';
          for (let epoch = 0; epoch < 6; epoch++) {
            await sleep(Math.random() * 30);
            let sums = '';
            await protection.checkpoint(async () => {
              saidThen = screen.text;
              sums = await diskSums(source);
            });
            expect(await diskSums(target), `disk at ${generation}.${epoch}`).to.equal(sums);
          }
          expect(target.disks?.isBlank(0)).to.equal(false);
          await source.destroy();
          await protection.breakOff();
          said += saidThen;
          await target.start();
          source = target.source();
          screen = targetScreen;
        }
        await screen.until(() => screen.text.length > 400);
        said += screen.text;
        // It was noise where the guest expects zeroes, until each of its four blocks was written.
        if (name === 'of noise') said = said.slice(said.indexOf(' ok\n') + 4);
        expect(successiveTicksOf(said).length).to.be.greaterThan(10);
      }));
  }

  it('is copied as fast as is asked for, until nobody wants it; what was not taken is left', async () => {
    await withNoise(2 * MIB, async (config) => {
      const { source } = await running(config);
      const disks = source.disks ?? expect.fail('it has no disk');
      const slow = new AbortController();
      const began = performance.now();
      const bytesPerSecond = 4 * MIB;
      const all = await disks.copy({
        ...{ disk: 0, signal: slow.signal, bytesPerSecond },
        take: () => Promise.resolve(),
      });
      expect([all.left.isEmpty, all.error]).to.deep.equal([true, null]);
      expect(performance.now() - began).to.be.greaterThan(350);
      const ended = new AbortController();
      let batches = 0;
      const some = await disks.copy({
        ...{ disk: 0, signal: ended.signal },
        take: () => {
          if (++batches === 1) return Promise.resolve();
          ended.abort(new Error('enough'));
          return new Promise(() => undefined);
        },
      });
      expect(some.error?.message).to.equal('enough');
      expect([...some.left.runs()]).to.deep.equal([{ offset: MIB, length: MIB }]);
    });
  });

  it('of a target is not written to once the machine runs', async () => {
    const { source } = await running(builtin({ ...load, diskBlocks: 16 }, 4 * MIB));
    const target = keep(await openEmbeddedTarget(builtin({ ...load, diskBlocks: 16 }, 4 * MIB)));
    const protection = await Protection.begin(source, target);
    await protection.checkpoint();
    await source.destroy();
    await protection.breakOff();
    await target.start();
    await expectCode(target.disks?.begin('staged') ?? Promise.resolve(), 'WRONG_STATE');
    await expectCode(source.disks?.seal() ?? Promise.resolve(), 'DOMAIN_GONE');
    await source.disks?.rest();
  });
});

type Breaks = (source: SourceDomain, target: TargetDomain) => void;

/** What is not the disk's content at the checkpoint, though nearly. */
const broken: Record<string, Breaks> = {
  'writes that are lost': (_, { disks }) => {
    if (!disks) return;
    const write = disks.write.bind(disks);
    let count = 0;
    disks.write = (...given) => (++count % 3 === 0 ? Promise.resolve() : write(...given));
  },
  'writes that come one checkpoint late': (_, { disks }) => {
    if (!disks) return;
    const [write, committed] = [disks.write.bind(disks), disks.committed.bind(disks)];
    let late: (() => Promise<void>)[] = [];
    let now: (() => Promise<void>)[] = [];
    disks.write = (disk, extents, data) => {
      const kept = structuredClone({ ...extents, count: extents.count });
      const octets = data.slice();
      now.push(() => write(disk, kept, octets));
      return Promise.resolve();
    };
    disks.committed = async (point) => {
      for (const work of late) await work();
      late = now;
      now = [];
      await committed(point);
    };
  },
  'writes of after the pause': ({ disks }) => {
    if (!disks) return;
    const seal = disks.seal.bind(disks);
    disks.seal = async () => {
      await sleep(40);
      return seal();
    };
  },
};

describe('embedded: a disk that is replicated badly', function () {
  this.timeout(30_000);

  for (const [name, breaks] of Object.entries(broken)) {
    it(`${name} are found by the guest, and by comparing`, async () => {
      const config = builtin({ ...load, diskBlocks: 48 }, 4 * MIB);
      const source = await openEmbeddedSource(config);
      const target = await openEmbeddedTarget(config);
      try {
        const [screen, targetScreen] = [new Console(source), new Console(target)];
        await source.start();
        await screen.until(() => screen.ticks().length > 5);
        breaks(source, target);
        const protection = await Protection.begin(source, target);
        let differs = 0;
        for (let epoch = 0; epoch < 8; epoch++) {
          await sleep(25);
          let sums = '';
          await protection.checkpoint(async () => (sums = await diskSums(source)));
          if ((await diskSums(target)) !== sums) differs++;
        }
        await source.destroy();
        await protection.breakOff();
        await target.start();
        await targetScreen.until(() => targetScreen.text.split('\n').length > 20);
        expect(differs).to.be.greaterThan(0);
        expect(targetScreen.text).to.include('BAD');
        expect(screen.text, 'the source is well').to.not.include('BAD');
      } finally {
        await source.destroy();
        await target.destroy();
      }
    });
  }
});
