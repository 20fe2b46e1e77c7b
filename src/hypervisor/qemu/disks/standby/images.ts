// A standby's images, open for writing: each a node of the block daemon's, exported to us.
//
//   in place   write ── NBD ──▶ export ─▶ root ─▶ format ─▶ file
//   staged     write ── NBD ──▶ export ─▶ root ─▶ overlay (FILE.romulus-staged) ─▶ format ─▶ file     until applyStaged()
//   trial      … ─▶ root ─▶ what a write is about to cover is kept ─▶ format ─▶ file                  moment.ts
//
// Raw files could be written by ourselves, which costs a fifth (1000 writes of 4 KiB: 20 to 30 ms in the place of 80 to
// 120, on two cores that are busy). But this way there is one way for all formats, zeroes and discards are the block
// layer's business, the image is locked against everybody else, and whoever hangs in a bad disk is another process: more
// than the guest can write by its mirror, and than the network brings, goes through it.

import { rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { DirtyMap } from '../../../../disk/dirty-map.js';
import { asError } from '../../../../errors.js';
import { withinAwake } from '../../../../flow/awake.js';
import { valueAt } from '../../../../stream/bounds.js';
import type { HypervisorError } from '../../../port.js';
import { badConfiguration, failed } from '../../../port.js';
import { ALLOCATION, markData } from '../nbd/block-status.js';
import { NbdClient } from '../nbd/client.js';
import { NbdError } from '../nbd/error.js';
import { makeOwnDirectory } from '../../process/own-directory.js';
import { QmpError } from '../../monitor/qmp.js';
import type { JsonObject } from '../../monitor/qmp-parser.js';
import type { LocalDisk } from '../drives.js';
import { createImage } from './create.js';
import { explained } from './explained.js';
import { BlockDaemon } from './daemon.js';
import { codeIn, runJob } from './jobs.js';
import { Moment, imageNode, prepareRoots, rootNode, rootOn, type MomentFiles } from './moment.js';

/** A disk that answers none of what it is asked within it hangs. */
const ANSWER_MS = 30_000;
/** Of all that was written before, at the speed of the disk. */
const FLUSH_MS = 300_000;
const APPLY_MS = 24 * 3600 * 1000;
/** A trial waits no longer for a flush, and what is to be written then waits for it. */
const PATIENCE_MS = 2000;

export interface Images {
  /** Octets of each disk, as the guest sees it. */
  readonly bytes: readonly number[];
  /** Resolves with the error when they are not to be had any more. */
  readonly lost: Promise<HypervisorError>;
  /** @throws HypervisorError (so do all) FAILED with the facts `disk`, `file`, `code` (the system's); HUNG */
  write(disk: number, offset: number, data: Uint8Array): Promise<void>;
  zero(disk: number, offset: number, length: number): Promise<void>;
  read(disk: number, offset: number, into: Uint8Array): Promise<void>;
  /** Marks the chunks of the range that hold anything but zeroes, as far as that is known without reading. */
  markData(disk: number, offset: number, length: number, data: DirtyMap): Promise<void>;
  /** What was written before is on the disks. */
  flush(): Promise<void>;
  /** What is written from now on is kept aside. */
  stage(): Promise<void>;
  applyStaged(): Promise<void>;
  /** Where those of a trial are exported. */
  readonly socket: string;
  /**
   * What they hold now is exported, too (trialExport), until endTrial(), stage() or close(). Done already: anew.
   * @throws HypervisorError; endTrial() undoes what was done
   */
  beginTrial(files: MomentFiles): Promise<void>;
  /** What is exported is what they held. @throws HypervisorError FAILED if not all of that could be kept, or nothing is */
  confirmTrial(): Promise<void>;
  /** @throws HypervisorError if they are not as they were; to be called again, or they are to be closed */
  endTrial(): Promise<void>;
  /**
   * What was written is seen by whoever opens them next. They are on the disks some time later. If it fails, they are
   * closed, and nobody knows what is in them.
   */
  close(): Promise<void>;
}

interface Image {
  readonly disk: LocalDisk;
  readonly client: NbdClient;
  /** Of its own, so that no write looks as if it had hung behind a flush. */
  readonly flusher: NbdClient;
}

export function stagedOf(file: string): string {
  return `${file}.romulus-staged`;
}

/** What a test does otherwise. */
export interface OpenOptions {
  /** How the file of an image is opened. */
  readonly nodeOf?: (disk: LocalDisk) => Promise<JsonObject>;
  readonly answerMs?: number;
}

/**
 * Their files are there. `isStaged`: they had been staged when they were closed, and go on so; else what is left of that
 * is removed.
 * @throws HypervisorError BAD_CONFIGURATION naming the image, FAILED, HUNG
 */
export async function openImages(
  disks: readonly LocalDisk[],
  isStaged: boolean,
  { nodeOf = nodeOfFile, answerMs = ANSWER_MS }: OpenOptions = {},
): Promise<Images> {
  const daemon = await BlockDaemon.start();
  try {
    const directory = await makeOwnDirectory(tmpdir(), 'romulus-disks');
    const removed = daemon.gone.then(() => rm(directory, { recursive: true, force: true }));
    removed.catch(() => undefined); // told to who closes them
    const path = join(directory, 'socket');
    await prepareRoots(daemon.qmp);
    await daemon.qmp.execute('nbd-server-start', { addr: { type: 'unix', data: { path } } });
    const images: Image[] = [];
    for (const [index, disk] of disks.entries()) {
      const name = imageNode(index);
      await addImage(daemon, index, disk, await nodeOf(disk));
      await daemon.qmp.execute('blockdev-add', rootOn(index, name));
      await daemon.qmp.execute('block-export-add', {
        ...{ type: 'nbd', id: name, name, 'node-name': rootNode(index), writable: true },
      });
      const [client, flusher] = await Promise.all([
        NbdClient.connect({ path, exportName: name, contexts: [ALLOCATION], timeoutMs: answerMs }),
        NbdClient.connect({ path, exportName: name, timeoutMs: FLUSH_MS }),
      ]);
      images.push({ disk, client, flusher });
    }
    const opened = new DaemonImages(daemon, { socket: path, removed }, images);
    if (isStaged) await opened.stageAgain();
    else await Promise.all(disks.map(({ file }) => rm(stagedOf(file), { force: true })));
    return opened;
  } catch (error) {
    await daemon.kill();
    throw error instanceof NbdError ? failed('a standby’s disks cannot be reached', {}, error) : error;
  }
}

async function nodeOfFile({ file, options }: LocalDisk): Promise<JsonObject> {
  const isDevice = (await stat(file)).isBlockDevice();
  return {
    ...{ driver: isDevice ? 'host_device' : 'file', filename: file },
    discard: options.preallocate ? 'ignore' : 'unmap',
  };
}

/** @throws HypervisorError BAD_CONFIGURATION */
async function addImage(
  daemon: BlockDaemon,
  index: number,
  disk: LocalDisk,
  file: JsonObject,
): Promise<void> {
  const { id, format, options } = disk;
  // Zeroes give room back, unless it was all given on purpose.
  const discard = options.preallocate ? 'ignore' : 'unmap';
  try {
    await daemon.qmp.execute('blockdev-add', {
      driver: format,
      'node-name': imageNode(index),
      discard,
      file,
    });
  } catch (error) {
    if (!(error instanceof QmpError)) throw error;
    const { description } = error;
    throw badConfiguration(
      `the image ${disk.file} of the disk ${id} cannot be opened for writing: ${description}`,
      { key: 'arguments', value: disk.file, disk: id, code: codeIn(description) },
      error,
    );
  }
}

class DaemonImages implements Images {
  readonly bytes: readonly number[];
  readonly lost: Promise<HypervisorError>;
  readonly socket: string;
  /** What it was in, once the daemon has ended. */
  readonly #removed: Promise<void>;
  readonly #daemon: BlockDaemon;
  readonly #images: readonly Image[];
  #isStaged = false;
  #stages = 0;
  #trial: Moment | null = null;
  /** The last flush, and a change of what lies below the exports: not both at once. Neither rejects. */
  #flushing: Promise<unknown> = Promise.resolve();
  #changing: Promise<unknown> = Promise.resolve();

  constructor(
    daemon: BlockDaemon,
    { socket, removed }: { readonly socket: string; readonly removed: Promise<void> },
    images: readonly Image[],
  ) {
    this.#daemon = daemon;
    this.socket = socket;
    this.#removed = removed;
    this.#images = images;
    this.bytes = images.map(({ client }) => client.bytes);
    this.lost = daemon.gone.then((reason) => failed(`a standby’s disks are written by nobody: ${reason}`));
  }

  write(disk: number, offset: number, data: Uint8Array): Promise<void> {
    return this.#of(disk, 'write', ({ client }) => client.write(offset, data));
  }

  zero(disk: number, offset: number, length: number): Promise<void> {
    return this.#of(disk, 'write', ({ client }) => client.writeZeroes(offset, length));
  }

  read(disk: number, offset: number, into: Uint8Array): Promise<void> {
    return this.#of(disk, 'read', ({ client }) => client.read(offset, into));
  }

  markData(disk: number, offset: number, length: number, data: DirtyMap): Promise<void> {
    return this.#of(disk, 'read', ({ client }) => markData(client, offset, length, data));
  }

  async flush(): Promise<void> {
    await this.#changing;
    const flushed = Promise.all(
      this.#images.map((_, disk) => this.#of(disk, 'flush', ({ flusher }) => flusher.flush())),
    );
    this.#flushing = flushed.catch(() => undefined);
    await flushed;
  }

  async stage(): Promise<void> {
    const { qmp } = this.#daemon;
    await this.endTrial();
    this.#isStaged = true;
    for (const [index, { disk, client }] of this.#images.entries()) {
      await createImage(qmp, { file: stagedOf(disk.file), format: 'qcow2', bytes: client.bytes });
      await this.#overlay(index);
    }
  }

  /** The overlays that are there already. */
  async stageAgain(): Promise<void> {
    this.#isStaged = true;
    for (const index of this.#images.keys()) await this.#overlay(index);
  }

  async applyStaged(): Promise<void> {
    const { qmp } = this.#daemon;
    for (const [index, { disk }] of this.#images.entries()) {
      const id = `apply-${this.#stages++}`;
      const node = overlayOf(index);
      const order = {
        device: rootNode(index),
        'top-node': node,
        'auto-dismiss': false,
        'on-error': 'report',
      };
      await this.#of(index, 'write', () => runJob(qmp, id, ['block-commit', order], APPLY_MS));
      await qmp.execute('blockdev-del', { 'node-name': node });
      await rm(stagedOf(disk.file), { force: true });
    }
    this.#isStaged = false;
  }

  async beginTrial(files: MomentFiles): Promise<void> {
    await this.endTrial();
    await this.#change(PATIENCE_MS, async () => {
      this.#trial = new Moment(this.#daemon.qmp, this.#images.length);
      await this.#trial.take(files);
    });
  }

  async confirmTrial(): Promise<void> {
    const trial = this.#trial;
    if (trial === null) throw failed('the disks of a trial are gone');
    const sector = new Uint8Array(512);
    await this.#change(FLUSH_MS, () =>
      trial.confirm(async (exportName) => {
        const { socket: path } = this;
        const client = await NbdClient.connect({ path, exportName, timeoutMs: ANSWER_MS });
        await client.read(0, sector).finally(() => client.close());
      }),
    );
  }

  async endTrial(): Promise<void> {
    const trial = this.#trial;
    if (trial === null) return;
    await this.#change(FLUSH_MS, () => trial.end());
    this.#trial = null;
  }

  async close(): Promise<void> {
    for (const { client, flusher } of this.#images) {
      client.close();
      flusher.close();
    }
    // What is in a raw file is there. Other formats keep in memory what they know of their files.
    const isPlain = !this.#isStaged && this.#images.every(({ disk }) => disk.format === 'raw');
    if (isPlain) await this.#daemon.kill();
    else {
      // Else it has more to close than what is worth closing.
      await this.endTrial().catch(() => undefined);
      await this.#daemon.quit();
    }
    await this.#removed.catch(() => undefined); // whoever comes next removes it
  }

  /** QEMU lets what is under way end first, and nothing else begin: a flush takes what it takes. */
  async #change(patienceMs: number, work: () => Promise<void>): Promise<void> {
    let over: () => void = () => undefined;
    const flushing = this.#flushing;
    this.#changing = new Promise<void>((resolve) => (over = resolve));
    try {
      await withinAwake(patienceMs, flushing, () => failed('the disks of the standby are slow now'));
      await work();
    } finally {
      over();
    }
  }

  /** From now on the export writes into the overlay, as a snapshot does. */
  async #overlay(index: number): Promise<void> {
    const { qmp } = this.#daemon;
    const { disk } = valueAt(this.#images, index);
    await qmp.execute('blockdev-add', {
      ...{ driver: 'qcow2', 'node-name': overlayOf(index), backing: null, discard: 'unmap' },
      file: { driver: 'file', filename: stagedOf(disk.file), discard: 'unmap' },
    });
    await qmp.execute('blockdev-snapshot', { node: imageNode(index), overlay: overlayOf(index) });
  }

  async #of<T>(index: number, what: string, work: (image: Image) => Promise<T>): Promise<T> {
    const image = valueAt(this.#images, index);
    try {
      return await work(image);
    } catch (error) {
      throw explained(image.disk, what, asError(error));
    }
  }
}

function overlayOf(index: number): string {
  return `staged-${index}`;
}
