// Mounting where nobody sees it. The mount is made by a helper in a mount namespace of its own; we open the file through
// the helper, and let the helper end. From then on the file system lives as long as somebody holds one of them, and no
// longer: there is no mount point that could be left behind, whoever is killed when.
//
//   helper:  unshare --mount ─ mount -t fuse (fd 3) ─ "mounted" ─ waits ─ ends
//   we:      open /dev/fuse ──┘        serve, open /proc/HELPER/root/…/ram ──┘

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { fstatSync, writeFileSync } from 'node:fs';
import { open, type FileHandle } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { asError } from '../../../../errors.js';
import { failed, unsupported } from '../../../port.js';
import { RAM_NAME } from './protocol.js';

const MOUNT_TIMEOUT_MS = 10_000;

/** The device is not held any longer than needed. `read` ends when we close its input, or die. */
const SCRIPT = 'mount -i -t fuse -o "$1" romulus "$2" && exec 3<&- && echo mounted && read -r _';

/**
 * Mounts the file system of `deviceFd`, calls `serve`, and opens its file, guest RAM. `serve` closes `deviceFd`: once
 * only the server has it, the server's death ends every request, and so the opening.
 * @throws HypervisorError UNSUPPORTED if this process may not mount, or FAILED
 */
export async function openMounted(deviceFd: number, serve: () => void): Promise<FileHandle> {
  const directory = tmpdir(); // any: what it covers, it covers for the helper only
  const user = process.getuid?.() ?? 0;
  const group = process.getgid?.() ?? 0;
  const options = `fd=3,rootmode=40000,user_id=${user},group_id=${group},default_permissions`;
  const script = ['--mount', '--propagation', 'private', 'sh', '-c', SCRIPT, 'sh', options, directory];
  const helper = spawn('unshare', script, { stdio: ['pipe', 'pipe', 'pipe', deviceFd] });
  const { stdin, stdout, stderr } = helper;
  if (!stdin || !stdout || !stderr) throw failed('the helper has no pipes');
  let said = '';
  const closed = once(helper, 'close');
  closed.catch(() => undefined); // an 'error' is told by `mounted`
  try {
    const timer = setTimeout(() => helper.kill('SIGKILL'), MOUNT_TIMEOUT_MS);
    try {
      await new Promise<void>((resolve, reject) => {
        stdout.on('data', () => resolve());
        stderr.on('data', (chunk: Buffer) => (said += chunk.toString()));
        helper.on('error', reject);
        helper.on('close', () => reject(new Error(said.trim() || 'the helper was ended')));
      });
    } catch (error) {
      const cause = asError(error);
      const message = `the file system for guest RAM cannot be mounted: ${cause.message}`;
      throw unsupported(message, {}, cause);
    } finally {
      clearTimeout(timer);
    }
    serve();
    return await open(join(`/proc/${helper.pid ?? 0}/root`, directory, RAM_NAME), 'r+');
  } finally {
    stdin.destroy();
    await closed.catch(() => undefined);
  }
}

/**
 * The kernel lets a FUSE file system have 1 % of the dirty memory before it slows down who writes; a guest is to be
 * slowed down by nobody. Not possible without privileges, and then only slower.
 */
export function liftWritebackLimit(fd: number): void {
  const { dev } = fstatSync(fd);
  const major = (dev >>> 8) & 0xfff;
  const minor = (dev & 0xff) | ((dev >>> 12) & 0xfff00);
  try {
    writeFileSync(`/sys/class/bdi/${major}:${minor}/max_ratio`, '100');
  } catch {
    // It stays slower.
  }
}
