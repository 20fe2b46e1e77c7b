// What the lab takes from Debian 12: Xen 4.17, its toolstack, a dom0 kernel and a busybox, unpacked into a scratch
// folder; and QEMU, which is installed if it is missing, because it brings thirty libraries with it.

import { execFile } from 'node:child_process';
import { mkdir, readdir } from 'node:fs/promises';
import path from 'node:path';
import { promisify } from 'node:util';
import { downloadPackages, findIn } from '../support/tools.js';

const run = promisify(execFile);

const QEMU = 'qemu-system-x86_64';
const INSTALL_TIMEOUT_MS = 180_000;
const UNPACK_TIMEOUT_MS = 60_000;
const XEN_PACKAGES = [
  'xen-hypervisor-4.17-amd64',
  'xen-utils-4.17',
  'libxencall1',
  'libxendevicemodel1',
  'libxenevtchn1',
  'libxenforeignmemory1',
  'libxengnttab1',
  'libxenhypfs1',
  'libxenmisc4.17',
  'libxenstore4',
  'libxentoolcore1',
  'libxentoollog1',
];
const OTHER_PACKAGES = [
  'busybox-static',
  'libc6',
  'libgcc-s1',
  'liblzma5',
  'libuuid1',
  'libyajl2',
  'libzstd1',
  'zlib1g',
];

/** The lab cannot run on this machine; the message says what it lacks. Not a verdict on Romulus. */
export class LabUnavailableError extends Error {
  override readonly name = 'LabUnavailableError';
}

export interface DebianTree {
  /** Folder that holds what the packages hold. */
  readonly root: string;
  /** "6.1.0-56-amd64" */
  readonly kernelVersion: string;
}

/** @throws LabUnavailableError where the packages cannot be had */
export async function unpackDebian(scratch: string, signal: AbortSignal): Promise<DebianTree> {
  const archives = path.join(scratch, 'archives');
  const root = path.join(scratch, 'debian');
  await mkdir(archives);
  return orUnavailable('Debian 12 packages of Xen 4.17 cannot be had', signal, async () => {
    // The first download brings apt's lists up to date if need be; only then is the kernel's name to be had.
    await downloadPackages([...XEN_PACKAGES, ...OTHER_PACKAGES], archives, signal);
    const { stdout } = await run('apt-cache', ['depends', 'linux-image-amd64'], { signal });
    const kernelVersion = /Depends: linux-image-(\S+-amd64)/.exec(stdout)?.[1];
    if (kernelVersion === undefined) throw new Error('apt knows no linux-image-amd64');
    await downloadPackages([`linux-image-${kernelVersion}`], archives, signal);
    for (const archive of await readdir(archives)) {
      await run('dpkg-deb', ['--extract', path.join(archives, archive), root], {
        signal,
        timeout: UNPACK_TIMEOUT_MS,
      });
    }
    return { root, kernelVersion };
  });
}

/**
 * Path of QEMU's emulator of x86 machines, installed by apt if it is not there.
 * @throws LabUnavailableError where it is not and cannot be
 */
export async function ensureQemu(signal: AbortSignal): Promise<string> {
  const find = () => findIn((process.env['PATH'] ?? '').split(path.delimiter), QEMU);
  const installed = await find();
  if (installed !== null) return installed;
  if (process.getuid?.() !== 0) {
    throw new LabUnavailableError(`${QEMU} is not here, and only root may install it`);
  }
  console.log('qemu-system-x86 is not here: apt installs it');
  return orUnavailable(`${QEMU} is not here and cannot be installed`, signal, async () => {
    const environment = { ...process.env, DEBIAN_FRONTEND: 'noninteractive' };
    const options = { signal, timeout: INSTALL_TIMEOUT_MS, env: environment };
    await run('apt-get', ['-qq', 'update'], options);
    await run('apt-get', ['-qq', '-y', '--no-install-recommends', 'install', 'qemu-system-x86'], options);
    const found = await find();
    if (found === null) throw new Error(`qemu-system-x86 has no ${QEMU}`);
    return found;
  });
}

async function orUnavailable<T>(what: string, signal: AbortSignal, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (thrown) {
    signal.throwIfAborted();
    throw new LabUnavailableError(`${what}: ${thrown instanceof Error ? thrown.message : String(thrown)}`);
  }
}
