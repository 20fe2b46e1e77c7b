// QEMU's mirror into our exports, with the disk written to and copied at the same time: what was copied and what was
// mirrored together are the disk, with and without a link, with and without room.

import { setTimeout as sleep } from 'node:timers/promises';
import { expect } from 'chai';
import { CHUNK_BYTES, type DirtyMap } from '../../../../src/disk/dirty-map.js';
import { firstWhere } from '../../../../src/flow/first-where.js';
import { NbdClient } from '../../../../src/hypervisor/qemu/disks/nbd/client.js';
import type {
  CopiedBatch,
  CopyOutcome,
  NbdExports,
} from '../../../../src/hypervisor/qemu/disks/nbd/exports.js';
import type { QmpClient } from '../../../../src/hypervisor/qemu/monitor/qmp.js';
import { Cleanup } from '../../../support/cleanup.js';
import { newSeed } from '../../../support/random.js';
import { until } from '../../../support/until.js';
import {
  MIB,
  StandbyDisk,
  attachMirror,
  exported,
  needQemuTools,
  qemuImg,
  qemuIo,
  rawImage,
  sealInto,
  storageDaemon,
} from './support.js';
import { Writers, stamped } from './writers.js';

/** Not a whole number of chunks. */
const BYTES = 80 * MIB + 4096;
const SEAL_MS = 15;

class Lab {
  readonly standby = new StandbyDisk(BYTES);
  reads = 0;
  dirtyChunks = 0;
  covers = 0;
  #sealed = 0;
  #sealing: Promise<void> | null = null;
  readonly #over = new AbortController();
  #applied: (() => void)[] = [];

  private constructor(
    readonly image: string,
    readonly qmp: QmpClient,
    readonly exports: NbdExports,
    readonly writer: NbdClient,
    readonly reader: string,
  ) {}

  static async open(cleanup: Cleanup, format: string, poolBytes = 64 * MIB): Promise<Lab> {
    const directory = await cleanup.directory();
    const image = `${directory}/image`;
    if (format === 'raw') await rawImage(image, BYTES);
    else await qemuImg('create', '-q', '-f', format, image, String(BYTES));
    await qemuIo(image, format, 'write -P 7 3M 20M', 'write -P 8 70M 10M', 'write -z 8M 2M');
    const qmp = await storageDaemon(cleanup);
    const { exports } = await exported(cleanup, { disks: [{ name: 'disk', bytes: BYTES }], poolBytes });
    await qmp.execute('blockdev-add', { driver: 'file', 'node-name': 'file', filename: image });
    await qmp.execute('blockdev-add', { driver: format, 'node-name': 'disk', file: 'file' });
    const reader = `${directory}/exports`;
    await qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path: reader } } });
    const add = (id: string, writable: boolean) =>
      qmp.execute('block-export-add', { type: 'nbd', id, name: id, 'node-name': 'disk', writable });
    await add('writer', true);
    await attachMirror(qmp, exports, 'disk');
    await add('reader', false);
    const writer = await NbdClient.connect({ path: reader, exportName: 'writer' });
    cleanup.add(() => writer.close());
    const lab = new Lab(image, qmp, exports, writer, reader);
    lab.#sealing = lab.#sealAgainAndAgain();
    cleanup.add(() => lab.stopSealing());
    return lab;
  }

  /** What it found no room for. */
  async seal(): Promise<DirtyMap | null> {
    const [writes] = await sealInto(this.exports, { disk: this.standby });
    this.#sealed++;
    for (const go of this.#applied.splice(0)) go();
    if (!writes) throw new Error('nothing was sealed');
    const { counters, dirty } = writes;
    this.reads += counters.reads;
    this.covers += counters.covers;
    this.dirtyChunks += dirty?.count() ?? 0;
    return dirty;
  }

  async stopSealing(): Promise<void> {
    this.#over.abort();
    await this.#sealing;
    this.#sealing = null;
  }

  copy(todo?: DirtyMap): Promise<CopyOutcome> {
    return this.exports.copy({
      ...{ disk: 'disk', path: this.reader, exportName: 'reader' },
      ...(todo && { todo }),
      take: (batch) => this.take(batch),
    });
  }

  /** Before what the epoch of it wrote, after what those before did. */
  async take({ epoch, extents, slab }: CopiedBatch): Promise<void> {
    while (this.#sealed < epoch) await new Promise<void>((resolve) => this.#applied.push(resolve));
    this.standby.take({ extents, slabs: slab ? [slab] : [] });
  }

  async detach(): Promise<void> {
    const { qmp } = this;
    const gone = firstWhere(
      qmp.events$,
      ({ name }) => name === 'BLOCK_JOB_CANCELLED' || name === 'BLOCK_JOB_COMPLETED',
    );
    await qmp.execute('block-job-cancel', { device: 'job-disk', force: true });
    await gone;
    await qmp.execute('blockdev-del', { 'node-name': 'mirror-disk' });
  }

  /** Nothing is written any more: whether the standby's disk is this one. */
  async differing(): Promise<number> {
    await this.stopSealing();
    await this.seal();
    await this.detach();
    this.writer.close();
    const plain = `${this.image}.raw`;
    await qemuImg('convert', '-U', '-O', 'raw', this.image, plain);
    return this.standby.differing(plain);
  }

  async #sealAgainAndAgain(): Promise<void> {
    for (const { signal } = this.#over; !signal.aborted; await this.seal()) await sleep(SEAL_MS);
  }
}

describe('qemu disks: the mirror', function () {
  this.timeout(60_000);
  const cleanup = new Cleanup();
  const seed = newSeed();
  before(function () {
    console.log(`    seed ${seed}`);
    return needQemuTools(this);
  });
  afterEach(() => cleanup.run());

  for (const format of ['raw', 'qcow2']) {
    it(`${format}: a disk is copied while it is written to`, async () => {
      const lab = await Lab.open(cleanup, format);
      const writers = new Writers(lab.writer, 4, seed);
      await until('writes', () => writers.writes > 50);
      const { left, error } = await lab.copy();
      expect([error, left.isEmpty]).to.deep.equal([null, true]);
      const during = writers.writes;
      await until('more writes', () => writers.writes > during + 100);
      await writers.stop();
      expect(await lab.differing()).to.equal(0);
      expect(lab.covers, 'zeroes').to.be.greaterThan(0);
      expect(lab.reads, 'a mirror reads nothing of its target').to.equal(0);
      expect(lab.dirtyChunks).to.equal(0);
    });
  }

  it('without a link only a map is kept; what it has is copied again, while it is written to', async () => {
    const lab = await Lab.open(cleanup, 'raw');
    await lab.copy();
    expect(await lab.exports.setMode('disk', 'map')).to.equal(null);
    const writers = new Writers(lab.writer, 4, seed);
    await until('writes', () => writers.writes > 300);
    await writers.stop(); // as a pause
    const map = await lab.exports.setMode('disk', 'journal');
    if (!map) throw new Error('there is no map');
    expect(map.octets())
      .to.be.greaterThan(MIB)
      .and.below(32 * MIB + CHUNK_BYTES);
    const others = new Writers(lab.writer, 4, seed + 100);
    const { left, error } = await lab.copy(map);
    expect([error, left.isEmpty]).to.deep.equal([null, true]);
    await others.stop();
    expect(await lab.differing()).to.equal(0);
  });

  it('without room what is written is dirty, and nobody waits', async () => {
    const lab = await Lab.open(cleanup, 'raw', 2 * MIB);
    await lab.copy();
    await lab.stopSealing();
    for (let at = 0; at < 8 * MIB; at += MIB) await lab.writer.write(at + 512, stamped(MIB, at));
    const dirty = await lab.seal();
    if (!dirty) throw new Error('nothing is dirty');
    expect(dirty.octets()).to.be.within(6 * MIB, 6 * MIB + 2 * CHUNK_BYTES);
    const { error } = await lab.copy(dirty);
    expect(error).to.equal(null);
    expect(await lab.differing()).to.equal(0);
  });

  it('throttled, a write waits for room, or for the word that lets all through', async () => {
    const lab = await Lab.open(cleanup, 'raw', 2 * MIB);
    await lab.copy();
    await lab.stopSealing();
    await lab.exports.setMode('disk', 'throttle');
    let isWritten = false;
    const write = async (offset: number) => {
      isWritten = false;
      await lab.writer.write(offset, stamped(4 * MIB, offset));
      isWritten = true;
    };
    const first = write(0);
    for (let seals = 0; !isWritten; seals++) {
      expect(seals).to.be.below(20);
      await lab.seal();
      await sleep(20);
    }
    await first;
    expect(lab.dirtyChunks).to.equal(0);
    const second = write(8 * MIB);
    lab.exports.letThrough();
    await second;
    await lab.seal();
    expect(lab.dirtyChunks).to.be.greaterThan(0);
  });

  it('sync=full sends the whole disk', async () => {
    const lab = await Lab.open(cleanup, 'raw', 256 * MIB);
    await lab.detach();
    const ready: unknown[] = [];
    lab.qmp.events$.subscribe(({ name, data }) => name === 'BLOCK_JOB_READY' && ready.push(data['device']));
    await attachMirror(lab.qmp, lab.exports, 'disk', 'full');
    await until('it is ready', () => ready.includes('job-disk'));
    expect(await lab.differing()).to.equal(0);
    expect([lab.reads, lab.dirtyChunks]).to.deep.equal([0, 0]);
  });
});
