// A guest that writes to a disk as fast as it can (guest/writers.c), its disk as we replicate it, and a standby's disk that
// is built from what we are told of it, and nothing else.

import { readFileSync, statSync } from 'node:fs';
import { rm, writeFile } from 'node:fs/promises';
import path from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { expect } from 'chai';
import type { DirtyMap } from '../../../../src/disk/dirty-map.js';
import type { HypervisorError, HypervisorErrorCode } from '../../../../src/hypervisor/port.js';
import type { DiskEvent, DiskWrites } from '../../../../src/hypervisor/port-disks.js';
import type { QemuPrimary } from '../../../../src/hypervisor/qemu/index.js';
import { openQemuSource } from '../../../../src/hypervisor/qemu/index.js';
import type { QemuDisks } from '../../../../src/hypervisor/qemu/disks/qemu-disks.js';
import type { QmpClient } from '../../../../src/hypervisor/qemu/monitor/qmp.js';
import { until } from '../../../support/until.js';
import type { Cleanup } from '../../../support/cleanup.js';
import { expectCode } from '../../support.js';
import { TEST_NAME } from '../support.js';
import { MIB, StandbyDisk, qemuImg, rawImage } from './support.js';

export const BYTES = 4 * MIB;
export const WRITERS = fileURLToPath(
  new URL('../../../../../test/hypervisor/qemu/disks/guest/writers.elf', import.meta.url),
);
/** Of a busy host. */
const BOOT_MS = 40_000;
export interface LabOptions {
  readonly format: 'raw' | 'qcow2';
  readonly iothread?: boolean;
  readonly delays?: boolean;
  /** Default true. */
  readonly isStarted?: boolean;
  /** In the place of the disk's -drive, but for its id: of the image. */
  readonly drive?: (image: string) => string;
  readonly relaxed?: readonly string[];
}

/** For QEMU: the guest, and its disk, named "disk". */
export function writersArguments(drive: string, iothread = false): string[] {
  return [
    ...['-kernel', WRITERS, ...(iothread ? ['-object', 'iothread,id=io'] : [])],
    ...['-drive', `if=none,id=disk,${drive}`],
    ...['-device', `virtio-blk-pci,drive=disk,disable-modern=on${iothread ? ',iothread=io' : ''}`],
  ];
}

export async function imageOf(cleanup: Cleanup, format: LabOptions['format']): Promise<string> {
  const image = `${await cleanup.directory()}/image`;
  if (format === 'raw') await rawImage(image, BYTES);
  else await qemuImg('create', '-q', '-f', format, image, String(BYTES));
  return image;
}

/** Of a guest that runs: how its mirrors end from now on, and whether it stands still then. */
export function endsOfMirrors({ events$ }: QmpClient): boolean[] {
  const standingStill: boolean[] = [];
  let isStopped = false;
  events$.subscribe(({ name }) => {
    if (name === 'STOP' || name === 'RESUME') isStopped = name === 'STOP';
    if (name === 'BLOCK_JOB_COMPLETED' || name === 'BLOCK_JOB_CANCELLED') standingStill.push(isStopped);
  });
  return standingStill;
}

/** A thread's file cannot be told anything; a module that it imports can. */
export async function entryOf(plants: string, delays: boolean): Promise<URL> {
  const worker = new URL('./plantable-worker.js', import.meta.url);
  worker.searchParams.set('directory', plants);
  if (delays) worker.searchParams.set('delays', '');
  const file = path.join(plants, 'entry.mjs');
  await writeFile(file, `await import(${JSON.stringify(worker.href)});\n`);
  return pathToFileURL(file);
}

export class DiskLab {
  readonly source: QemuPrimary;
  readonly disks: QemuDisks;
  readonly events: DiskEvent[] = [];
  standby = new StandbyDisk(BYTES);
  /** Octets of writes that were taken. */
  written = 0;
  dirty = 0;
  readonly #image: string;
  readonly #format: LabOptions['format'];
  readonly #plants: string;
  #sealed = 0;
  #applied: (() => void)[] = [];

  /** Attached, and running. */
  static async open(cleanup: Cleanup, options: LabOptions): Promise<DiskLab> {
    const { format, iothread, drive } = options;
    const image = await imageOf(cleanup, format);
    const plants = await cleanup.directory();
    const entry = await entryOf(plants, options.delays === true);
    const source = await openQemuSource({
      ...{ name: TEST_NAME, memoryBytes: 16 * MIB, accelerator: 'tcg', cpus: 2, dirty: 'compare' },
      replication: { entry, ...(options.relaxed && { relaxed: options.relaxed }) },
      arguments: writersArguments(drive?.(image) ?? `file=${image},format=${format}`, iothread),
    });
    cleanup.add(() => source.destroy());
    const lab = new DiskLab(source, image, format, plants);
    await lab.disks.attach();
    if (options.isStarted !== false) {
      await source.start();
      await lab.hasWritten();
    }
    return lab;
  }

  constructor(source: QemuPrimary, image: string, format: LabOptions['format'], plants = '') {
    if (!source.disks) throw new Error('it has no disks');
    this.source = source;
    this.disks = source.disks;
    this.#image = image;
    this.#format = format;
    this.#plants = plants;
    this.disks.events$.subscribe((event) => this.events.push(event));
  }

  /** What the thread is to do at the next write; null: nothing any more. */
  async plant(what: 'die' | 'freeze' | 'refuse', isWanted = true): Promise<void> {
    const file = path.join(this.#plants, what);
    await (isWanted ? writeFile(file, '') : rm(file));
  }

  get lost(): string[] {
    return this.events.flatMap((event) => (event.kind === 'lost' ? [event.reason] : []));
  }

  async seal(): Promise<void> {
    this.take(await this.disks.seal());
  }

  /** What fails counts, too. */
  async sealFails(code: HypervisorErrorCode, text = ''): Promise<HypervisorError> {
    const error = await expectCode(this.disks.seal(), code, text);
    this.take([]);
    return error;
  }

  take(sealed: readonly DiskWrites[]): void {
    for (const { extents, slabs, dirty } of sealed) {
      this.standby.take({ extents, slabs });
      this.written += extents.lengths.reduce((sum, length) => sum + length, 0);
      this.dirty += dirty?.count() ?? 0;
      this.disks.release(slabs);
    }
    this.#sealed++;
    for (const go of this.#applied.splice(0)) go();
  }

  /** The guest writes. */
  async hasWritten(): Promise<void> {
    const { mtimeMs } = statSync(this.#image);
    await until('the guest writes', () => statSync(this.#image).mtimeMs !== mtimeMs, BOOT_MS);
  }

  /** The guest writes for a while; what it writes is taken, all the while. */
  async run(bytes = 100_000): Promise<void> {
    for (const before = this.written; this.written < before + bytes;) {
      await sleep(10);
      await this.seal();
    }
  }

  /** Before what its epoch wrote, after what those before did. */
  async copy(todo?: DirtyMap): Promise<Error | null> {
    const done = this.disks.copy({
      ...{ disk: 0, signal: new AbortController().signal, ...(todo && { todo }) },
      take: async ({ seals, extents, slab }) => {
        while (this.#sealed < seals) await new Promise<void>((resolve) => this.#applied.push(resolve));
        this.standby.take({ extents, slabs: slab ? [slab] : [] });
      },
    });
    const over = new AbortController();
    void done.then(() => over.abort());
    while (!over.signal.aborted) {
      await this.seal().catch(() => this.take([])); // it is lost: the copy says so
      await sleep(5);
    }
    const { left, error } = await done;
    expect(error !== null || left.isEmpty).to.equal(true);
    return error;
  }

  /** As a saver does: in the pause the epoch's end, and what the disk is then; how many sectors differ. */
  async pause(): Promise<number> {
    await this.source.suspend();
    const sealing = this.disks.seal();
    const now = await this.content();
    await this.source.resume();
    this.take(await sealing);
    return this.differing(now);
  }

  differing(now: Buffer): number {
    return this.standby.differingFrom(now);
  }

  /** The disk's, while its guest stands still. */
  async content(): Promise<Buffer> {
    if (this.#format === 'raw') return readFileSync(this.#image);
    const plain = `${this.#image}.raw`;
    await qemuImg('convert', '-U', '-O', 'raw', this.#image, plain);
    return readFileSync(plain);
  }
}
