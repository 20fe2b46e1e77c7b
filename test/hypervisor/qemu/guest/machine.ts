// A machine with the test guest in it, in a QEMU of its own without Romulus around it.
//
//     serial port   QEMU's stdin and stdout
//     network       QEMU's own ("user"), the guest's port 7 reachable by a port of the loopback
//     monitor       a unix socket, asked once which port that is

import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { rm } from 'node:fs/promises';
import net from 'node:net';
import path from 'node:path';
import type { Readable, Writable } from 'node:stream';
import type { GuestFiles } from '../../../../src/hypervisor/qemu/guest/build.js';
import { QEMU } from '../../../support/qemu.js';
import { temporaryDirectory } from '../../../support/temporary.js';

const WAIT_MS = 40_000;

export type MachineType = 'microvm' | 'q35';

export interface MachineOptions {
  readonly type: MachineType;
  readonly commandLine: string;
  /** Default true. */
  readonly networkCard?: boolean;
}

export class GuestMachine {
  /** All that the guest said. */
  text = '';
  readonly #started = performance.now();
  readonly #qemu: ChildProcessByStdio<Writable, Readable, Readable>;
  readonly #scratch: string;
  readonly #closed: Promise<number | null>;
  readonly #news = new EventEmitter();
  #errors = '';
  #ended = false;

  private constructor(qemuArguments: readonly string[], scratch: string) {
    this.#scratch = scratch;
    this.#qemu = spawn(QEMU, qemuArguments, { stdio: ['pipe', 'pipe', 'pipe'] });
    this.#closed = new Promise((resolve) => {
      this.#qemu.once('close', (code) => {
        this.#ended = true;
        resolve(code);
        this.#news.emit('news');
      });
    });
    this.#qemu.once('error', (error) => (this.#errors += error.message));
    this.#qemu.stderr.on('data', (text: Buffer) => (this.#errors += text.toString()));
    this.#qemu.stdout.setEncoding('latin1').on('data', (text: string) => {
      this.text += text;
      this.#news.emit('news');
    });
    // Input to a machine that has ended is noticed by whoever waits for its effect.
    this.#qemu.stdin.on('error', () => undefined);
  }

  static async start(files: GuestFiles, options: MachineOptions): Promise<GuestMachine> {
    const scratch = await temporaryDirectory('romulus-qemu-guest-');
    const card = options.type === 'microvm' ? 'virtio-net-device' : 'virtio-net-pci';
    return new GuestMachine(
      [
        ...['-accel', 'tcg', '-machine', options.type, '-cpu', 'max', '-m', '128'],
        ...['-nodefaults', '-no-reboot', '-display', 'none', '-serial', 'stdio'],
        ...['-monitor', `unix:${path.join(scratch, 'monitor')},server=on,wait=off`],
        ...['-kernel', files.kernel, '-initrd', files.initramfs, '-append', options.commandLine],
        ...['-netdev', 'user,id=net,restrict=on,hostfwd=tcp:127.0.0.1:0-:7'],
        ...(options.networkCard === false ? [] : ['-device', `${card},netdev=net`]),
      ],
      scratch,
    );
  }

  ageMs(): number {
    return performance.now() - this.#started;
  }

  input(text: string): void {
    this.#qemu.stdin.write(text);
  }

  /** Resolves with the first match in what comes after the first `from` characters. */
  async until(pattern: RegExp, from = 0): Promise<RegExpExecArray> {
    const signal = AbortSignal.timeout(WAIT_MS);
    for (;;) {
      const match = pattern.exec(this.text.slice(from));
      if (match !== null) return match;
      const seen = `${this.text.slice(-2000)}${this.#errors}`;
      if (this.#ended) throw new Error(`QEMU ended before ${String(pattern)}: ${seen}`);
      if (signal.aborted) throw new Error(`no ${String(pattern)} within ${WAIT_MS} ms: ${seen}`);
      await once(this.#news, 'news', { signal }).catch((error: unknown) => {
        if (!signal.aborted) throw error;
      });
    }
  }

  /** Resolves after the next `count` ticks, with their numbers; each must be good, and the one after the other. */
  async ticks(count: number): Promise<number[]> {
    const from = this.text.lastIndexOf('\n') + 1;
    await this.until(new RegExp(`(?:^tick .*\n){${count}}`, 'm'), from);
    const lines = this.text.slice(from).split('\n').slice(0, count);
    return lines.map((line) => Number(/^tick (\d+) ok$/.exec(line)?.[1] ?? Number.NaN));
  }

  /** A connection to the guest's counter. */
  async connect(): Promise<CounterClient> {
    const socket = net.connect({ host: '127.0.0.1', port: await this.#port() });
    await once(socket, 'connect');
    socket.setNoDelay();
    return new CounterClient(socket);
  }

  #knownPort: Promise<number> | undefined;
  #port(): Promise<number> {
    return (this.#knownPort ??= this.#askForPort());
  }

  async #askForPort(): Promise<number> {
    const monitor = net.connect({ path: path.join(this.#scratch, 'monitor') });
    try {
      monitor.write('info usernet\n');
      let answer = '';
      for await (const chunk of monitor) {
        answer += String(chunk);
        const port = /TCP\[HOST_FORWARD\]\s+\d+\s+127\.0\.0\.1\s+(\d+)/.exec(answer)?.[1];
        if (port !== undefined) return Number(port);
      }
      throw new Error(`QEMU does not say which port it forwards: ${answer}`);
    } finally {
      monitor.destroy();
    }
  }

  /** Resolves with QEMU's exit code when it has ended by itself. */
  async ended(): Promise<number | null> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`QEMU still runs: ${this.text.slice(-500)}`)), WAIT_MS);
    });
    try {
      return await Promise.race([this.#closed, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async destroy(): Promise<void> {
    this.#qemu.kill('SIGKILL');
    await this.#closed;
    await rm(this.#scratch, { recursive: true, force: true });
  }
}

export class CounterClient {
  readonly socket: net.Socket;
  #lines: string[] = [];
  #partial = '';
  readonly #news = new EventEmitter();
  #over = false;

  constructor(socket: net.Socket) {
    this.socket = socket;
    socket.setEncoding('latin1').on('data', (text: string) => {
      const lines = (this.#partial + text).split('\n');
      this.#partial = lines.pop() ?? '';
      this.#lines.push(...lines);
      this.#news.emit('news');
    });
    socket.on('error', () => undefined);
    socket.once('close', () => {
      this.#over = true;
      this.#news.emit('news');
    });
  }

  /** The next `count` lines that came; fewer if the connection ended before. */
  async lines(count: number): Promise<string[]> {
    const signal = AbortSignal.timeout(WAIT_MS);
    while (this.#lines.length < count && !this.#over) await once(this.#news, 'news', { signal });
    return this.#lines.splice(0, count);
  }

  get waiting(): number {
    return this.#lines.length;
  }

  async increment(): Promise<string | undefined> {
    this.socket.write('inc\n');
    return (await this.lines(1))[0];
  }

  async close(): Promise<void> {
    this.socket.destroy();
    if (!this.#over) await once(this.socket, 'close');
  }
}
