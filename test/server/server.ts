// A Debian server on two hosts: its domain as a user would write it, following the README, with an image for each host.

import { execFile } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { constants, copyFile, rm } from 'node:fs/promises';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { codeOf } from '../../src/errors.js';
import { TAP } from '../hypervisor/qemu/lab.js';
import { GUEST_MAC } from '../cluster/cluster.js';
import type { HostName } from '../cluster/network.js';
import { DISK_BYTES, type ServerFiles } from './image.js';

const run = promisify(execFile);

export const SERVER = 'server';
export const DISK = 'root';
const FSCK_TIMEOUT_MS = 120_000;

export interface Image {
  readonly file: string;
  readonly format: 'qcow2' | 'raw';
}

/** alpha has a copy of the server's disk, beta an image that Romulus makes. */
export async function imagesIn(
  directory: string,
  files: ServerFiles,
): Promise<Record<'alpha' | 'beta', Image>> {
  const alpha = { file: join(directory, 'alpha.qcow2'), format: 'qcow2' } as const;
  await copyFile(files.disk, alpha.file, constants.COPYFILE_FICLONE);
  return { alpha, beta: { file: join(directory, 'beta.img'), format: 'raw' } };
}

/** For the cluster's file. */
export function serverDomain(files: ServerFiles, images: Readonly<Record<'alpha' | 'beta', Image>>): object {
  const kernel = [
    'root=/dev/vda rw console=ttyS0 quiet net.ifnames=0',
    // The processor is emulated: what is of use to a real one takes time.
    'mitigations=off apparmor=0 selinux=0 audit=0 fsck.mode=skip',
  ].join(' ');
  const argumentsFor = ({ file, format }: Image) => [
    ...['-kernel', files.kernel, '-initrd', files.initrd, '-append', kernel],
    ...['-drive', `file=${file},format=${format},if=virtio,id=${DISK}`],
  ];
  return {
    name: SERVER,
    hosts: {
      alpha: { hypervisor: { arguments: argumentsFor(images.alpha) } },
      beta: {
        hypervisor: { arguments: argumentsFor(images.beta), disks: { [DISK]: { size: DISK_BYTES } } },
      },
    },
    hypervisor: {
      ...{ kind: 'qemu', accelerator: 'tcg', cpu: 'max', memory: '384MiB' },
      network: [{ id: 'lan', mac: GUEST_MAC, tap: TAP }],
    },
    heartbeat: { intervalMs: 100, timeoutMs: 3000 },
    failover: { redialMaxMs: 500 },
  };
}

/** The point that the image is of, and will be though its host loses its power; null: of none. */
export function pointOf({ file }: Image): { streamUuid: string; epoch: number } | null {
  try {
    return JSON.parse(readFileSync(`${file}.romulus`, 'utf8')) as { streamUuid: string; epoch: number };
  } catch (error) {
    if (codeOf(error) === 'ENOENT') return null;
    throw error;
  }
}

/** A copy of it as it is, in another's way if that writes. */
export async function copied(image: Image, file: string): Promise<Image> {
  // Node's would write out what is not there.
  await run('cp', ['--reflink=auto', '--sparse=auto', image.file, file]);
  return { file, format: image.format };
}

/**
 * Its file system is without a fault once its journal is replayed, as at every mount; and so is its format. The image is
 * used up. @throws Error with what is wrong
 */
export async function checked(image: Image): Promise<void> {
  const raw = image.format === 'raw' ? image.file : `${image.file}.raw`;
  try {
    if (raw !== image.file) {
      await run('qemu-img', ['check', '-q', '-f', image.format, image.file]);
      await run('qemu-img', ['convert', '-f', image.format, '-O', 'raw', image.file, raw]);
    }
    await e2fsck(raw, '-y', '-E', 'journal_only');
    await e2fsck(raw, '-f', '-n');
  } finally {
    await Promise.all([image.file, raw].map((file) => rm(file, { force: true })));
  }
}

async function e2fsck(file: string, ...how: string[]): Promise<void> {
  await run('e2fsck', [...how, file], { timeout: FSCK_TIMEOUT_MS }).catch((error: unknown) => {
    const { code, stdout } = error as { code: number; stdout: string };
    throw new Error(`e2fsck ${how.join(' ')} ended with ${code}: ${stdout.slice(0, 4000)}`, { cause: error });
  });
}

export function imageOf(images: Readonly<Record<'alpha' | 'beta', Image>>, host: HostName): Image {
  if (host === 'gamma') throw new Error('gamma has no image');
  return images[host];
}
