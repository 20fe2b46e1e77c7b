// What the images of a standby hold at one moment, for a QEMU that tries it, while checkpoints go on being written into them.
// What is about to be overwritten is kept aside first; what the QEMU writes lies in a file of its own.
//
//   export ─▶ root ─▶ before ─▶ image ─▶ file         before: copies what a write is about to cover, to `kept`
//                        │        ▲
//                        └▶ kept ─┘ ◀── new ◀── pace ◀── export "trial-N" ◀── the QEMU of the trial
//
// If there is no room for what is kept, the standby loses nothing, but the trial sees a disk of several moments, and nobody is
// told (QEMU 7.2): so it is asked for at the end (confirm). A node for what was before (snapshot-access) would refuse to be
// read then; but there it mixes two moments where one request reads both what was kept and what was not.

import { join } from 'node:path';
import { rm } from 'node:fs/promises';
import { filter, firstValueFrom } from 'rxjs';
import { withinAwake } from '../../../../flow/awake.js';
import { failed } from '../../../port.js';
import { makeOwnDirectory } from '../../process/own-directory.js';
import type { JsonObject } from '../../monitor/qmp-parser.js';
import type { QmpClient, QmpCommand } from '../../monitor/qmp.js';
import { createImage } from './create.js';

/** What it writes lies in a file for temporary ones until its end. */
export const TRIAL_BYTES_PER_SECOND = 2 ** 25;
const PACE = 'romulus-pace';
const NO_LIMITS = 'romulus-no-limits';
/** To be rid of an export whose client does not read. */
const UNEXPORT_MS = 10_000;

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

function temporaryDirectory(): string {
  // As QEMU's own temporary images: /tmp may be memory.
  return process.env['TMPDIR'] ?? '/var/tmp';
}

export class Moment {
  readonly #qmp: QmpClient;
  /** The last first. */
  readonly #undo: QmpCommand[] = [];

  /** `bytes`: of each image. @throws HypervisorError, QmpError; all is as it was then */
  static async take(qmp: QmpClient, bytes: readonly number[]): Promise<Moment> {
    const moment = new Moment(qmp);
    try {
      await moment.#take(bytes);
      return moment;
    } catch (error) {
      await moment.end();
      throw error;
    }
  }

  private constructor(qmp: QmpClient) {
    this.#qmp = qmp;
  }

  /**
   * Asked at the end: all was kept. `read`: a sector of an export.
   * @throws HypervisorError FAILED if it was not; QmpError, and as `read` does
   */
  async confirm(count: number, read: (exportName: string) => Promise<void>): Promise<void> {
    for (let index = 0; index < count; index++) {
      const name = `past-${index}`;
      await this.#add({ driver: 'snapshot-access', 'node-name': name, file: beforeNode(index) });
      await this.#addExport(name, false);
      try {
        await read(name);
      } catch (error) {
        const message = 'there was no room for what the disk of a trial was: it saw another one';
        throw failed(message, { directory: temporaryDirectory() }, error);
      }
    }
  }

  /** The exports end, whoever uses them. @throws QmpError, HypervisorError HUNG */
  async end(): Promise<void> {
    for (let undo = this.#undo.shift(); undo !== undefined; undo = this.#undo.shift()) {
      const [command, argument] = undo;
      if (command === 'block-export-del') await this.#unexport(argument);
      else await this.#qmp.execute(command, argument);
    }
  }

  async #take(bytes: readonly number[]): Promise<void> {
    const directory = await makeOwnDirectory(temporaryDirectory(), 'romulus-trial');
    try {
      // All that takes time first: the moment is that of the last write before `before` is there.
      for (const [index, length] of bytes.entries()) {
        for (const name of [keptNode(index), newNode(index)]) {
          await createImage(this.#qmp, { file: join(directory, name), format: 'qcow2', bytes: length });
        }
        await this.#add(fileNode(directory, keptNode(index)));
        await this.#add(overlay(keptNode(index), imageNode(index)));
      }
      for (const index of bytes.keys()) await this.#insert(index);
      const limits = { 'bps-write': TRIAL_BYTES_PER_SECOND };
      await this.#do(
        ['object-add', { 'qom-type': 'throttle-group', id: PACE, limits }],
        ['object-del', { id: PACE }],
      );
      for (const index of bytes.keys()) await this.#export(index, directory);
    } finally {
      // Who uses them has them open.
      await rm(directory, { recursive: true, force: true });
    }
  }

  async #insert(index: number): Promise<void> {
    const image = imageNode(index);
    const before = beforeNode(index);
    await this.#add({
      ...{ driver: 'copy-before-write', 'node-name': before, file: image, target: keptNode(index) },
      'on-cbw-error': 'break-snapshot',
    });
    const reopen = (file: string): QmpCommand => ['blockdev-reopen', { options: [rootOn(index, file)] }];
    await this.#do(reopen(before), reopen(image));
    // While the image is reached by two ways the other one cannot be taken back (QEMU 7.2 aborts).
    this.#undo.unshift(['blockdev-reopen', { options: [overlay(keptNode(index), null)] }]);
  }

  async #export(index: number, directory: string): Promise<void> {
    const name = trialExport(index);
    await this.#add(fileNode(directory, newNode(index)));
    await this.#add(overlay(newNode(index), keptNode(index)));
    const file = newNode(index);
    await this.#add({
      driver: 'throttle',
      'node-name': name,
      'throttle-group': PACE,
      discard: 'unmap',
      file,
    });
    await this.#addExport(name, true);
  }

  async #addExport(name: string, writable: boolean): Promise<void> {
    await this.#do(
      ['block-export-add', { type: 'nbd', id: name, name, 'node-name': name, writable }],
      ['block-export-del', { id: name, mode: 'hard' }],
    );
  }

  async #add(node: JsonObject): Promise<void> {
    await this.#do(['blockdev-add', node], ['blockdev-del', { 'node-name': node['node-name'] }]);
  }

  async #do([command, argument]: QmpCommand, undo: QmpCommand): Promise<void> {
    await this.#qmp.execute(command, argument);
    this.#undo.unshift(undo);
  }

  async #unexport(argument: JsonObject | undefined): Promise<void> {
    const id = argument?.['id'];
    const deleted = firstValueFrom(
      this.#qmp.events$.pipe(
        filter(({ name, data }) => name === 'BLOCK_EXPORT_DELETED' && data['id'] === id),
      ),
    );
    deleted.catch(() => undefined); // looked at below
    await this.#qmp.execute('block-export-del', argument);
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

function fileNode(directory: string, name: string): JsonObject {
  return { driver: 'file', 'node-name': `${name}-file`, filename: join(directory, name), discard: 'unmap' };
}

function overlay(name: string, backing: string | null): JsonObject {
  return { driver: 'qcow2', 'node-name': name, discard: 'unmap', file: `${name}-file`, backing };
}
