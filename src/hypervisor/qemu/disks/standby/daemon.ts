// QEMU's block layer without a machine: the process that a standby's images are written through, whatever their format
// is. The standby's QEMU does not have them open meanwhile (see inactive.ts), so what becomes of that is no matter to them.
//
//   fd 0, 1  monitor (QMP)        our end is its end (the parent-death signal, where setpriv is installed)

import { spawn, type ChildProcess } from 'node:child_process';
import { badConfiguration, failed } from '../../../port.js';
import { findExecutable } from '../../process/executable.js';
import { onProcessExit } from '../../process/exit-hooks.js';
import { QmpClient } from '../../monitor/qmp.js';

const PROGRAM = 'qemu-storage-daemon';
/** Octets of its standard error that are kept for the error. */
const STDERR_BYTES_MAX = 4096;
const START_TIMEOUT_MS = 30_000;
/** All that was written since the last flush is flushed. */
const QUIT_TIMEOUT_MS = 30_000;

export class BlockDaemon {
  readonly qmp: QmpClient;
  /** Resolves with the reason when it has ended; never rejects. */
  readonly gone: Promise<string>;
  readonly #child: ChildProcess;

  /** @throws HypervisorError BAD_CONFIGURATION (it is not installed), FAILED */
  static async start(): Promise<BlockDaemon> {
    const program = await findExecutable(PROGRAM);
    if (program === null) {
      const facts = { key: 'disks', value: PROGRAM };
      throw badConfiguration(
        `there is no ${PROGRAM}, which a standby’s disks are written by: install it (qemu-system-common, or qemu-storage-daemon)`,
        facts,
      );
    }
    const setpriv = await findExecutable('setpriv');
    const before = setpriv === null ? [] : ['--pdeathsig', 'KILL', program];
    const monitor = ['--chardev', 'stdio,id=monitor,signal=off', '--monitor', 'chardev=monitor'];
    // In a group of its own: a Ctrl-C is for us.
    const child = spawn(setpriv ?? program, [...before, ...monitor], {
      stdio: ['pipe', 'pipe', 'pipe'],
      detached: true,
    });
    let said = '';
    child.stderr.on('data', (chunk: Buffer) => (said = (said + chunk.toString()).slice(-STDERR_BYTES_MAX)));
    const unhook = onProcessExit(() => child.kill('SIGKILL'));
    const gone = new Promise<string>((resolve) => {
      child.on('error', (error) => resolve(error.message));
      child.on('close', (code, signal) => {
        const how = signal === null ? `ended with code ${String(code)}` : `was killed by ${signal}`;
        resolve(`${PROGRAM} ${how}${said === '' ? '' : `: ${said.trim()}`}`);
      });
    }).finally(unhook);
    try {
      const qmp = await QmpClient.open({ readable: child.stdout, writable: child.stdin }, START_TIMEOUT_MS);
      qmp.limit();
      return new BlockDaemon(child, qmp, gone);
    } catch (error) {
      child.kill('SIGKILL');
      throw failed(`a standby’s disks cannot be opened: ${await gone}`, {}, error);
    }
  }

  private constructor(child: ChildProcess, qmp: QmpClient, gone: Promise<string>) {
    this.#child = child;
    this.qmp = qmp;
    this.gone = gone;
  }

  /**
   * It closes its images first: what it keeps of their formats in memory is in them then.
   * @throws HypervisorError FAILED if it did not: it has ended all the same
   */
  async quit(): Promise<void> {
    this.qmp.execute('quit').catch(() => undefined); // how it ends tells more
    const timer = setTimeout(() => this.#child.kill('SIGKILL'), QUIT_TIMEOUT_MS);
    const reason = await this.gone;
    clearTimeout(timer);
    this.qmp.close();
    if (this.#child.exitCode !== 0) throw failed(`a standby’s disks were not closed: ${reason}`);
  }

  /** What was written, and answered, is the kernel's, but for what a format keeps in memory. May be called twice. */
  async kill(): Promise<void> {
    this.#child.kill('SIGKILL');
    await this.gone;
    this.qmp.close();
  }
}
