// What a standby's images hold at one moment, for somebody else, while checkpoints are written into them.

import { execFile } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { promisify } from 'node:util';
import { expect } from 'chai';
import { WriteKind } from '../../../../../src/disk/extents.js';
import { codeOf } from '../../../../../src/errors.js';
import { NbdClient } from '../../../../../src/hypervisor/qemu/disks/nbd/client.js';
import { StandbyDisks } from '../../../../../src/hypervisor/qemu/disks/standby/standby-disks.js';
import type { TrialDisks } from '../../../../../src/hypervisor/qemu/disks/standby/trial-disks.js';
import { Cleanup } from '../../../../support/cleanup.js';
import { LONG } from '../../../../support/length.js';
import { seeded } from '../../../../support/random.js';
import { expectCode } from '../../../support.js';
import { MIB, needQemuTools, temporaryFiles } from '../support.js';
import {
  OTHER_STREAM,
  STREAM,
  applyTo,
  contentOf,
  daemonOf,
  give,
  localDisk,
  type Write,
} from './support.js';

const run = promisify(execFile);
const BYTES = 16 * MIB;
/** The block layer's graph is changed under writes, each time. */
const TRIALS = LONG ? 300 : 15;
const { DATA, ZERO } = WriteKind;

describe('qemu disks: a standby’s images, tried', function () {
  this.timeout(30_000);
  const cleanup = new Cleanup();
  let directory = '';
  let temporary = '';
  before(function () {
    return needQemuTools(this);
  });
  beforeEach(async () => {
    directory = await cleanup.directory();
    temporary = await temporaryFiles(cleanup);
  });
  afterEach(() => cleanup.run());

  class Images {
    epoch = -1;
    readonly model = Buffer.alloc(BYTES);

    constructor(readonly disks: StandbyDisks) {}

    async commit(...writes: Write[]): Promise<void> {
      applyTo(this.model, writes);
      await give(this.disks, writes);
      await this.disks.committed({ streamUuid: STREAM, epoch: ++this.epoch });
    }
  }

  async function opened(format: string, paceMs = 1000): Promise<Images> {
    const local = localDisk(`${directory}/image`, format, { bytes: BYTES });
    const disks = await StandbyDisks.prepare([local], { paceMs });
    let left: Promise<void> | null = null;
    cleanup.add(() => (left ??= disks.leave()));
    await disks.openNow();
    await disks.begin('in-place');
    const images = new Images(disks);
    await images.commit(
      { kind: DATA, offset: 0, length: MIB, stamp: 1 },
      { kind: DATA, offset: 8 * MIB, length: MIB, stamp: 2 },
    );
    return images;
  }

  async function reach(trial: TrialDisks): Promise<NbdClient> {
    const { socket = '', name = '' } = trial.places.get('disk') ?? {};
    const client = await NbdClient.connect({ path: socket, exportName: name, timeoutMs: 5000 });
    cleanup.add(() => client.close());
    return client;
  }

  async function contentAt(client: NbdClient): Promise<Buffer> {
    const octets = Buffer.alloc(BYTES);
    for (let at = 0; at < BYTES; at += MIB) await client.read(at, octets.subarray(at, at + MIB));
    return octets;
  }

  const failureOf = (client: NbdClient) => client.read(0, Buffer.alloc(512)).then(() => null, codeOf);

  for (const format of ['raw', 'qcow2']) {
    it(`are seen as they were, whatever is committed since, and are not changed by what is written there; ${format}`, async () => {
      const images = await opened(format);
      const { disks, model } = images;
      const trial = await disks.forTrial();
      // Writes of the next checkpoint are asked for in the same turn.
      const taken = trial.take();
      const then = Buffer.from(model);
      await images.commit(
        { kind: DATA, offset: MIB / 2, length: MIB, stamp: 3 },
        { kind: ZERO, offset: 8 * MIB + 4096, length: 8192 },
      );
      await taken;
      const client = await reach(trial);
      expect((await contentAt(client)).compare(then), 'as it was').to.equal(0);
      await client.write(4096, Buffer.alloc(MIB, 0xaa));
      then.fill(0xaa, 4096, 4096 + MIB);
      await images.commit({ kind: DATA, offset: 4 * MIB, length: 3 * MIB, stamp: 4 });
      expect((await contentAt(client)).compare(then), 'with what it wrote').to.equal(0);
      const left = readdirSync(temporary).filter((name) => name.startsWith('romulus-trial'));
      expect(left, 'no file has a name').to.deep.equal([]);

      await trial.confirm();
      await trial.end();
      expect(await failureOf(client)).to.equal('CLOSED');
      // Once more, of what there is now.
      const again = await disks.forTrial();
      await again.take();
      expect((await contentAt(await reach(again))).compare(model)).to.equal(0);
      await again.end();
      await images.commit({ kind: DATA, offset: 0, length: 4096, stamp: 5 });
      await disks.leave();
      expect((await contentOf(`${directory}/image`, format)).compare(model)).to.equal(0);
    });

    it(`are left to the next stream, though somebody is reading; ${format}`, async () => {
      const images = await opened(format);
      const { disks, model } = images;
      const trial = await disks.forTrial();
      await trial.take();
      const client = await reach(trial);
      await disks.begin('staged');
      expect(await failureOf(client)).to.equal('CLOSED');
      const writes: Write[] = [{ kind: DATA, offset: 0, length: 2 * MIB, stamp: 6 }];
      applyTo(model, writes);
      await give(disks, writes);
      await disks.committed({ streamUuid: OTHER_STREAM, epoch: 0 });
      await trial.end();
      await disks.taken();
      await disks.leave();
      expect((await contentOf(`${directory}/image`, format)).compare(model)).to.equal(0);
    });
  }

  it(`are tried ${TRIALS} times while they are written and flushed, by one daemon`, async function () {
    this.timeout(60_000 + TRIALS * 1000);
    const images = await opened('qcow2', 1);
    const { disks, model } = images;
    const daemon = daemonOf(`${directory}/image`);
    const random = seeded(11);
    let isOver = false;
    const between: (() => unknown)[] = [];
    const commits = (async () => {
      while (!isOver) {
        const offset = 4096 * Math.floor(random() * (BYTES / 4096 - 32));
        const kind = random() < 0.7 ? DATA : ZERO;
        await images.commit({ kind, offset, length: 4096 * 32, stamp: images.epoch });
        between.pop()?.();
      }
    })();
    const taken = () =>
      new Promise<TrialDisks>((resolve, reject) => {
        disks.forTrial().then((trial) => {
          between.push(() => trial.take().then(() => resolve(trial), reject));
        }, reject);
      });
    for (let k = 0; k < TRIALS; k++) {
      const trial = await taken();
      const client = await reach(trial);
      await client.write(0, Buffer.alloc(4096, k));
      if (k % 2 === 0) await trial.confirm();
      if (k % 3 === 0) client.close();
      await trial.end();
      client.close();
    }
    isOver = true;
    await commits;
    expect(daemonOf(`${directory}/image`)).to.equal(daemon);
    await disks.leave();
    expect((await contentOf(`${directory}/image`, 'qcow2')).compare(model)).to.equal(0);
  });

  it('are not tried while they are as of no checkpoint', async () => {
    const { disks } = await opened('raw');
    await give(disks, [{ kind: DATA, offset: 0, length: 4096, stamp: 7 }]);
    const trial = await disks.forTrial();
    await expectCode(trial.take(), 'WRONG_STATE');
    await disks.committed({ streamUuid: STREAM, epoch: 1 });
    await disks.begin('staged');
    await expectCode(disks.forTrial(), 'WRONG_STATE');
  });

  it('are closed, and taken, while somebody tries them: they are whole', async () => {
    for (const close of [
      (disks: StandbyDisks) => disks.taken(),
      (disks: StandbyDisks) => disks.lent(() => Promise.resolve()),
      (disks: StandbyDisks) => disks.leave(),
    ]) {
      const images = await opened('qcow2');
      const { disks, model } = images;
      let lost: unknown = null;
      void disks.lost.then((error) => (lost = error));
      const trial = await disks.forTrial();
      await trial.take();
      await (await reach(trial)).write(0, Buffer.alloc(MIB, 0xbb));
      await images.commit({ kind: DATA, offset: MIB, length: MIB, stamp: 10 });
      await close(disks);
      await trial.end();
      await disks.leave();
      expect(lost).to.equal(null);
      expect((await contentOf(`${directory}/image`, 'qcow2')).compare(model)).to.equal(0);
    }
  });

  it('are not taken by a trial that has ended, and a trial that is not taken leaves nothing', async () => {
    const { disks } = await opened('raw');
    const trial = await disks.forTrial();
    await Promise.all([trial.end(), expectCode(trial.take(), 'WRONG_STATE')]);
    expect(readdirSync(temporary).filter((name) => name.startsWith('romulus-trial'))).to.deep.equal([]);
    const again = await disks.forTrial();
    await again.take();
    expect((await contentAt(await reach(again))).length).to.equal(BYTES);
    await again.end();
  });

  it('lose nothing where there is no room for what is kept: the trial does', async function () {
    if (process.getuid?.() !== 0) return this.skip();
    await run('mount', ['-t', 'tmpfs', '-o', 'size=2m', 'romulus-test', temporary]);
    cleanup.add(() => run('umount', ['-l', temporary]));
    const images = await opened('raw');
    const { disks, model } = images;
    const trial = await disks.forTrial();
    await trial.take();
    await images.commit({ kind: DATA, offset: 0, length: 9 * MIB, stamp: 8 });
    await expectCode(trial.confirm(), 'FAILED', 'not all could be kept');
    await trial.end();
    await images.commit({ kind: DATA, offset: 12 * MIB, length: MIB, stamp: 9 });
    await disks.leave();
    expect((await contentOf(`${directory}/image`, 'raw')).compare(model)).to.equal(0);
  });

  it('… and where there is none for the trial itself it fails, and they do not', async function () {
    if (process.getuid?.() !== 0) return this.skip();
    await run('mount', ['-t', 'tmpfs', '-o', 'size=64k', 'romulus-test', temporary]);
    cleanup.add(() => run('umount', ['-l', temporary]));
    const images = await opened('raw');
    const { disks, model } = images;
    await expectCode(disks.forTrial(), 'FAILED');
    await images.commit({ kind: DATA, offset: 0, length: 2 * MIB, stamp: 8 });
    process.env['TMPDIR'] = directory;
    const trial = await disks.forTrial();
    await trial.take();
    expect((await contentAt(await reach(trial))).compare(model)).to.equal(0);
    await trial.end();
  });
});
