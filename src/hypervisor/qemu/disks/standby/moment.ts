// What the images of a standby hold at one moment, for a QEMU that tries it, while checkpoints go on being written into them.
// What is about to be overwritten is kept aside first; what the QEMU writes lies in a file of its own.
//
//   export ─▶ root ─▶ before ─▶ image ─▶ file         before: copies what a write is about to cover, to `kept`
//                        │        ▲
//                        └▶ kept ─┘ ◀── new ◀── export "trial-N" ◀── the QEMU of the trial
//
// If what is kept finds no room, or hangs, the standby loses nothing, but the trial sees a disk of several moments, and nobody
// is told (QEMU 7.2): so it is asked for at the end (confirm). A node for what was before (snapshot-access) would refuse to be
// read then; but there it mixes two moments where one request reads both what was kept and what was not.
//
// The standby's images are worth more than any trial: its files are made by another process (MomentFiles), nothing of it waits
// in the daemon (its writes are slowed down where they come from), and what was done is noted before it is done, so that it
// is undone whatever became of it.

import { rm } from 'node:fs/promises';
import { join } from 'node:path';
import { filter, firstValueFrom } from 'rxjs';
import { asError } from '../../../../errors.js';
import { withinAwake } from '../../../../flow/awake.js';
import { failed } from '../../../port.js';
import { QmpError, type QmpClient, type QmpCommand } from '../../monitor/qmp.js';
import type { JsonObject } from '../../monitor/qmp-parser.js';
import { makeOwnDirectory } from '../../process/own-directory.js';
import { createImage } from './create.js';
import { BlockDaemon } from './daemon.js';

const NO_LIMITS = 'romulus-no-limits';
/** To be rid of an export whose client does not read. */
const UNEXPORT_MS = 10_000;
/** What is kept of a write is kept within it, or not at all: the write waits. */
const KEEP_SECONDS = 5;
const MISSING = /not found|cannot find|failed to find|does not exist/i;

/** Of the image with this index. */
export function imageNode(index: number): string {
  return `disk-${index}`;
}

/** What its export is on: what lies below may be changed. */
export function rootNode(index: number): string {
  return `root-${index}`;
}

export function trialExport(index: number): string {
  return `trial-${index}`;
}

/** Before the first root. @throws QmpError */
export async function prepareRoots(qmp: QmpClient): Promise<void> {
  await qmp.execute('object-add', { 'qom-type': 'throttle-group', id: NO_LIMITS });
}

/** A filter that does nothing. */
export function rootOn(index: number, file: string): JsonObject {
  const node = { driver: 'throttle', 'throttle-group': NO_LIMITS, 'node-name': rootNode(index) };
  return { ...node, discard: 'unmap', file };
}

/** As of QEMU's own temporary images: /tmp may be memory. */
function temporaryDirectory(): string {
  return process.env['TMPDIR'] ?? '/var/tmp';
}

/** The files of a moment to come. */
export class MomentFiles {
  readonly #directory: string;

  /** `bytes`: of each image. @throws HypervisorError FAILED where there is no room for them */
  static async make(bytes: readonly number[]): Promise<MomentFiles> {
    const parent = temporaryDirectory();
    try {
      const files = new MomentFiles(await makeOwnDirectory(parent, 'romulus-trial'));
      try {
        await files.#make(bytes);
        return files;
      } catch (error) {
        await files.remove();
        throw error;
      }
    } catch (error) {
      throw failed(
        `files for a trial cannot be made in ${parent}: ${asError(error).message}`,
        { parent },
        error,
      );
    }
  }

  private constructor(directory: string) {
    this.#directory = directory;
  }

  path(name: string): string {
    return join(this.#directory, name);
  }

  /** Their names: who uses them has them open. May be called twice. */
  async remove(): Promise<void> {
    await rm(this.#directory, { recursive: true, force: true });
  }

  async #make(bytes: readonly number[]): Promise<void> {
    const daemon = await BlockDaemon.start();
    try {
      for (const [index, length] of bytes.entries()) {
        for (const name of [keptNode(index), newNode(index)]) {
          await createImage(daemon.qmp, { file: this.path(name), format: 'qcow2', bytes: length });
        }
      }
    } finally {
      await daemon.kill();
    }
  }
}

export class Moment {
  readonly #qmp: QmpClient;
  readonly #images: number;
  /** The last first. */
  readonly #undo: QmpCommand[] = [];

  constructor(qmp: QmpClient, images: number) {
    this.#qmp = qmp;
    this.#images = images;
  }

  /** What it has begun end() undoes, also if it fails. @throws HypervisorError, QmpError */
  async take(files: MomentFiles): Promise<void> {
    for (let index = 0; index < this.#images; index++) {
      await this.#add(fileNode(files, keptNode(index)));
      await this.#add(overlay(keptNode(index), imageNode(index)));
      await this.#add(fileNode(files, newNode(index)));
    }
    for (let index = 0; index < this.#images; index++) await this.#insert(index);
    for (let index = 0; index < this.#images; index++) {
      await this.#add(overlay(newNode(index), keptNode(index)));
      await this.#export(trialExport(index), newNode(index), true);
    }
  }

  /**
   * Asked at the end: all was kept. `read`: a sector of an export.
   * @throws HypervisorError FAILED if it was not; QmpError
   */
  async confirm(read: (exportName: string) => Promise<void>): Promise<void> {
    for (let index = 0; index < this.#images; index++) {
      const name = `past-${index}`;
      await this.#add({ driver: 'snapshot-access', 'node-name': name, file: beforeNode(index) });
      await this.#export(name, name, false);
      try {
        await read(name);
      } catch (error) {
        const message =
          'not all could be kept of what the disk of a trial was, so it may have seen another one';
        throw failed(message, { directory: temporaryDirectory() }, error);
      }
    }
  }

  /** The exports end, whoever uses them. To be called again if it fails. @throws QmpError, HypervisorError */
  async end(): Promise<void> {
    for (let undo = this.#undo[0]; undo !== undefined; undo = this.#undo[0]) {
      try {
        await this.#undone(undo);
      } catch (error) {
        if (!(error instanceof QmpError) || !MISSING.test(error.description)) throw error;
      }
      this.#undo.shift();
    }
  }

  async #insert(index: number): Promise<void> {
    const image = imageNode(index);
    const before = beforeNode(index);
    await this.#add({
      ...{ driver: 'copy-before-write', 'node-name': before, file: image, target: keptNode(index) },
      ...{ discard: 'unmap', 'on-cbw-error': 'break-snapshot', 'cbw-timeout': KEEP_SECONDS },
    });
    const reopen = (options: JsonObject): QmpCommand => ['blockdev-reopen', { options: [options] }];
    // While the image is reached by two ways the other one cannot be taken back (QEMU 7.2 aborts): they are parted before.
    this.#undo.unshift(reopen(overlay(keptNode(index), null)), reopen(rootOn(index, image)));
    await this.#qmp.execute(...reopen(rootOn(index, before)));
  }

  async #export(name: string, node: string, writable: boolean): Promise<void> {
    await this.#do(
      ['block-export-add', { type: 'nbd', id: name, name, 'node-name': node, writable }],
      ['block-export-del', { id: name, mode: 'hard' }],
    );
  }

  async #add(node: JsonObject): Promise<void> {
    await this.#do(['blockdev-add', node], ['blockdev-del', { 'node-name': node['node-name'] }]);
  }

  async #do(command: QmpCommand, undo: QmpCommand): Promise<void> {
    this.#undo.unshift(undo);
    await this.#qmp.execute(...command);
  }

  async #undone([command, argument]: QmpCommand): Promise<void> {
    if (command !== 'block-export-del') {
      await this.#qmp.execute(command, argument);
      return;
    }
    const id = argument?.['id'];
    const deleted = firstValueFrom(
      this.#qmp.events$.pipe(
        filter(({ name, data }) => name === 'BLOCK_EXPORT_DELETED' && data['id'] === id),
      ),
    );
    deleted.catch(() => undefined); // looked at below
    await this.#qmp.execute(command, argument);
    await withinAwake(UNEXPORT_MS, deleted, () =>
      failed('QEMU keeps an export that was to end', { id: String(id) }),
    );
  }
}

function beforeNode(index: number): string {
  return `before-${index}`;
}

/** The nodes of two files are named as these are. */
function keptNode(index: number): string {
  return `kept-${index}`;
}

function newNode(index: number): string {
  return `new-${index}`;
}

function fileNode(files: MomentFiles, name: string): JsonObject {
  return { driver: 'file', 'node-name': `${name}-file`, filename: files.path(name), discard: 'unmap' };
}

function overlay(name: string, backing: string | null): JsonObject {
  return { driver: 'qcow2', 'node-name': name, discard: 'unmap', file: `${name}-file`, backing };
}
