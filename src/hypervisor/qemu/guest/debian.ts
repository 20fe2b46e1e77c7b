// Debian's kernel for virtual machines, downloaded and unpacked, not installed: nothing on this machine changes.

import { mkdir, readdir } from 'node:fs/promises';
import { join } from 'node:path';
import { HypervisorError, failed, unsupported } from '../../port.js';
import { aptCache, aptGet, dpkgDeb, run } from './programs.js';

/** Depends on the kernel's own package, whose name holds a version. */
const META_PACKAGE = 'linux-image-cloud-amd64';

const OPTIONS: readonly string[] = [
  // As root apt would download as a user of its own, who may not enter our folder.
  ...['-o', 'APT::Sandbox::User=root'],
  ...['-o', 'Acquire::http::Timeout=20'],
  ...['-o', 'Acquire::Retries=1'],
];

export interface KernelTree {
  /** The bzImage. */
  readonly kernel: string;
  /** /lib/modules/VERSION */
  readonly modules: string;
}

/**
 * @param work an empty folder of the caller's, who removes it
 * @throws HypervisorError UNSUPPORTED where there is no apt or it knows no such kernel, FAILED where that cannot be had
 */
export async function unpackKernel(work: string, signal: AbortSignal): Promise<KernelTree> {
  const archive = await download(join(work, 'first'), [], signal).catch(async () => {
    signal.throwIfAborted();
    // No package lists, or lists of packages that are gone. Lists of our own leave the machine's alone, and need no
    // root. What is wrong otherwise is wrong again.
    const lists = await ownLists(work);
    await run(aptGet, ['-qq', ...OPTIONS, ...lists, 'update'], { signal });
    return download(join(work, 'second'), lists, signal);
  });
  const tree = join(work, 'tree');
  await run(dpkgDeb, ['--extract', archive, tree], { signal });
  return {
    kernel: await onlyEntry(join(tree, 'boot'), /^vmlinuz-/),
    // Newer packages have everything below usr/.
    modules: await onlyEntry(join(tree, 'lib/modules'), /./).catch(() =>
      onlyEntry(join(tree, 'usr/lib/modules'), /./),
    ),
  };
}

async function download(folder: string, lists: readonly string[], signal: AbortSignal): Promise<string> {
  await mkdir(folder);
  const options = [...OPTIONS, ...lists];
  const debianPackage = await kernelPackage(options, signal);
  await run(aptGet, ['-qq', ...options, 'download', debianPackage], { signal, cwd: folder });
  return onlyEntry(folder, /\.deb$/);
}

async function kernelPackage(options: readonly string[], signal: AbortSignal): Promise<string> {
  const depends = await run(aptCache, [...options, 'depends', META_PACKAGE], { signal }).catch(
    (error: unknown) => {
      // It fails where it does not know the package.
      if (error instanceof HypervisorError && error.code === 'FAILED') return '';
      throw error;
    },
  );
  const debianPackage = /Depends: (linux-image-\S+)/.exec(depends.toString())?.[1];
  if (debianPackage !== undefined) return debianPackage;
  throw unsupported(
    `apt knows no ${META_PACKAGE}: the test guest needs a Debian (amd64) with its archive in reach, or a kernel and an initramfs of your own`,
    { debianPackage: META_PACKAGE },
  );
}

async function ownLists(work: string): Promise<string[]> {
  const lists = join(work, 'lists');
  const cache = join(work, 'cache');
  await mkdir(join(lists, 'partial'), { recursive: true });
  await mkdir(join(cache, 'archives/partial'), { recursive: true });
  return ['-o', `Dir::State::Lists=${lists}`, '-o', `Dir::Cache=${cache}`];
}

async function onlyEntry(folder: string, name: RegExp): Promise<string> {
  const found = (await readdir(folder)).filter((entry) => name.test(entry));
  const [entry] = found;
  if (entry === undefined || found.length > 1) {
    throw failed('a kernel’s package is not laid out as expected', { folder, found: found.join(' ') });
  }
  return join(folder, entry);
}
