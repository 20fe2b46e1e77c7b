// A machine with Xen on it: QEMU in software emulation, with two serial ports.
//
//     com1 ── file console.log               what Xen and dom0's kernel say, for whoever must find out why it did not boot
//     com2 ── QEMU's own stdin and stdout    a shell in dom0: commands in; what they print, and their status, out

import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { readFile } from 'node:fs/promises';
import path from 'node:path';
import type { Readable, Writable } from 'node:stream';
import type { BootFiles } from './dom0.js';

const BOOT_TIMEOUT_MS = 120_000;
const END_TIMEOUT_MS = 5_000;
/** Lines of the console that an error shows. */
const SHOWN_LINES = 30;

const XEN_ARGUMENTS = [
  'dom0_mem=512M,max:512M',
  'dom0_max_vcpus=1',
  ...['com1=115200,8n1', 'console=com1', 'loglvl=warning', 'guest_loglvl=warning'],
  // Guards against side channels cost time and guard nothing here.
  ...['spec-ctrl=no', 'xpti=no'],
].join(' ');
// A dom0 that panics reboots, and a reboot ends QEMU.
const KERNEL_ARGUMENTS = 'console=hvc0 quiet panic=-1';

export interface CommandResult {
  readonly status: number;
  /** Standard output and standard error, as they came. */
  readonly output: string;
}

export class Machine {
  readonly #qemu: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #console: string;
  readonly #closed: Promise<unknown>;
  /** Emits "news" when something came from com2 and when QEMU has ended. */
  readonly #events = new EventEmitter();
  #received = '';
  #errors = '';
  #ended = false;

  private constructor(qemu: string, boot: BootFiles, scratch: string) {
    this.#console = path.join(scratch, 'console.log');
    this.#qemu = spawn(
      qemu,
      [
        ...['-accel', 'tcg', '-m', '1024', '-smp', '1'],
        // With SMAP dom0 crashes early under emulation.
        ...['-cpu', 'max,-smap'],
        ...['-nodefaults', '-no-reboot', '-display', 'none'],
        ...['-serial', `file:${this.#console}`],
        ...['-chardev', 'stdio,id=shell,signal=off', '-serial', 'chardev:shell'],
        ...['-kernel', boot.xen, '-append', XEN_ARGUMENTS],
        ...['-initrd', `${boot.kernel} ${KERNEL_ARGUMENTS},${boot.initramfs}`],
      ],
      { stdio: ['pipe', 'pipe', 'pipe'] },
    );
    this.#closed = new Promise((resolve) => this.#qemu.once('close', resolve));
    this.#qemu.once('close', () => {
      this.#ended = true;
      this.#events.emit('news');
    });
    this.#qemu.once('error', (error) => (this.#errors += error.message));
    this.#qemu.stdout.setEncoding('latin1').on('data', (text: string) => {
      this.#received += text;
      this.#events.emit('news');
    });
    this.#qemu.stderr.on('data', (text: Buffer) => (this.#errors += text.toString()));
    // A command to a machine that has ended fails where its answer is waited for.
    this.#qemu.stdin.on('error', () => undefined);
  }

  /** Resolves when dom0's toolstack is up. */
  static async boot(qemu: string, boot: BootFiles, scratch: string, signal: AbortSignal): Promise<Machine> {
    const machine = new Machine(qemu, boot, scratch);
    try {
      await machine.#receive(/DOM0-READY\n/, 'boot of dom0', BOOT_TIMEOUT_MS, signal);
      return machine;
    } catch (error) {
      await machine.end();
      throw error;
    }
  }

  /** Runs a shell command of one line in dom0. One at a time. */
  async run(command: string, timeoutMs: number, signal: AbortSignal): Promise<CommandResult> {
    this.#qemu.stdin.write(`${command}\n`);
    const { before, match } = await this.#receive(/DOM0-STATUS (\d+)\n/, command, timeoutMs, signal);
    return { status: Number(match[1]), output: before };
  }

  /** Ends the machine, as a power cut would. */
  async end(): Promise<void> {
    if (this.#ended) return;
    this.#qemu.kill('SIGTERM');
    const timer = setTimeout(() => this.#qemu.kill('SIGKILL'), END_TIMEOUT_MS);
    await this.#closed;
    clearTimeout(timer);
  }

  /** What com2 says up to the first match, which is taken out of what was received. */
  async #receive(
    end: RegExp,
    what: string,
    timeoutMs: number,
    signal: AbortSignal,
  ): Promise<{ before: string; match: RegExpExecArray }> {
    const timeout = AbortSignal.timeout(timeoutMs);
    const either = AbortSignal.any([signal, timeout]);
    for (;;) {
      const match = end.exec(this.#received);
      if (match !== null) {
        const before = this.#received.slice(0, match.index);
        this.#received = this.#received.slice(match.index + match[0].length);
        return { before, match };
      }
      if (this.#ended) throw new Error(await this.#explain(`the machine ended during: ${what}`));
      try {
        await once(this.#events, 'news', { signal: either });
      } catch (error) {
        signal.throwIfAborted();
        if (!timeout.aborted) throw error;
        throw new Error(await this.#explain(`no end within ${timeoutMs} ms: ${what}`), { cause: error });
      }
    }
  }

  async #explain(what: string): Promise<string> {
    const console = await readFile(this.#console, 'latin1').catch(() => '');
    const tail = console.split('\n').slice(-SHOWN_LINES).join('\n');
    return [what, this.#errors, this.#received, tail].filter((text) => text !== '').join('\n');
  }
}
