// Images that are not there yet: made by QEMU's block layer, whole or not at all.

import { constants } from 'node:fs';
import { access, open, rename, rm } from 'node:fs/promises';
import { dirname } from 'node:path';
import { codeOf } from '../../../../errors.js';
import { badConfiguration, type HypervisorError } from '../../../port.js';
import type { QmpClient } from '../../monitor/qmp.js';
import type { LocalDisk } from '../drives.js';
import { BlockDaemon } from './daemon.js';
import { runJob } from './jobs.js';

/** Room is given at once, unless a file system has to write it all. */
const CREATE_MS = 3600 * 1000;

export interface NewImage {
  readonly file: string;
  readonly format: string;
  readonly bytes: number;
  /** It is given all of its room now. */
  readonly preallocate?: boolean;
}

/** Those that are not there are made, and given. @throws HypervisorError BAD_CONFIGURATION naming the image; FAILED */
export async function createMissing(disks: readonly LocalDisk[]): Promise<readonly LocalDisk[]> {
  const missing: LocalDisk[] = [];
  for (const disk of disks) if (!(await isThere(disk))) missing.push(disk);
  for (const { name, file, options } of missing) {
    if (options.bytes !== undefined) continue;
    throw badConfiguration(
      `there is no image ${file} for the disk ${name}: make one of the size of the primary’s, or say its size ` +
        `in the configuration, "disks: { ${name}: { size: 20GiB } }"`,
      { key: 'disks', value: name, file },
    );
  }
  if (missing.length === 0) return missing;
  const daemon = await BlockDaemon.start();
  try {
    for (const { file, format, options } of missing) {
      const { bytes = 0, preallocate } = options;
      await createAside(daemon.qmp, { file, format, bytes, preallocate });
    }
    return missing;
  } finally {
    await daemon.kill();
  }
}

async function isThere({ name, file }: LocalDisk): Promise<boolean> {
  try {
    await access(file, constants.F_OK);
    return true;
  } catch (error) {
    const code = codeOf(error);
    if (code === 'ENOENT') return false;
    const facts = { key: 'arguments', value: file, code };
    throw badConfiguration(`the image ${file} of the disk ${name} cannot be reached: ${code}`, facts, error);
  }
}

/** Under its name there is all of it, or nothing. */
async function createAside(qmp: QmpClient, image: NewImage): Promise<void> {
  const { file, bytes } = image;
  const aside = `${file}.romulus-new`;
  try {
    await createImage(qmp, { ...image, file: aside });
    const handle = await open(aside, 'r');
    await handle.sync().finally(() => handle.close());
    await rename(aside, file);
    const directory = await open(dirname(file), 'r');
    await directory.sync().finally(() => directory.close());
  } catch (error) {
    await rm(aside, { force: true }).catch(() => undefined);
    throw notMade(image, error, bytes);
  }
}

function notMade({ file }: NewImage, error: unknown, bytes: number): HypervisorError {
  const reason = error instanceof Error ? error.message : String(error);
  return badConfiguration(`the image ${file} cannot be made: ${reason}`, { file, bytes }, error);
}

/** In the place of what is there. @throws HypervisorError FAILED */
export async function createImage(
  qmp: QmpClient,
  { file, format, bytes, preallocate = false }: NewImage,
): Promise<void> {
  const isRaw = format === 'raw';
  const preallocation = preallocate ? { preallocation: 'falloc' } : {};
  await rm(file, { force: true });
  const options = { driver: 'file', filename: file, size: isRaw ? bytes : 0 };
  const id = 'create';
  await runJob(
    qmp,
    id,
    ['blockdev-create', { options: { ...options, ...(isRaw ? preallocation : {}) } }],
    CREATE_MS,
  );
  if (isRaw) return;
  const node = 'new-file';
  await qmp.execute('blockdev-add', { driver: 'file', 'node-name': node, filename: file });
  try {
    const formatted = { driver: format, file: node, size: bytes, ...preallocation };
    await runJob(qmp, id, ['blockdev-create', { options: formatted }], CREATE_MS);
  } finally {
    await qmp.execute('blockdev-del', { 'node-name': node });
  }
}
