// A directory whose server takes requests, and does not answer them: as a server of NFS that hangs. Whoever asks for
// something there cannot be killed, until the server is gone.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { closeSync, constants, openSync, readSync, writeSync } from 'node:fs';
import { codeOf } from '../../src/errors.js';
import {
  Opcode,
  OUT_HEADER_BYTES,
  putHeader,
  putInit,
  Request,
  WRITE_BYTES_MAX,
} from '../../src/hypervisor/qemu/memory/fuse/protocol.js';
import type { Cleanup } from '../support/cleanup.js';

const LOOK_MS = 2;
const FLAGS = constants.O_RDWR | constants.O_NONBLOCK;

export class DeafDirectory {
  directory = '';
  /** Requests that wait for an answer. */
  asked = 0;
  /** Null: the server is gone. */
  #device: number | null = openSync('/dev/fuse', FLAGS);
  readonly #timer = setInterval(() => this.#look(), LOOK_MS);

  static async open(cleanup: Cleanup): Promise<DeafDirectory> {
    const deaf = new DeafDirectory();
    cleanup.add(() => deaf.end());
    const directory = await cleanup.directory();
    const options = 'fd=3,rootmode=40000,user_id=0,group_id=0';
    const script = `mount -i -t fuse -o ${options} deaf ${directory} && exec 3<&- && echo mounted && read -r _`;
    const holder = spawn('unshare', ['--mount', '--propagation', 'private', 'sh', '-c', script], {
      stdio: ['pipe', 'pipe', 'inherit', deaf.#device],
    });
    cleanup.add(async () => {
      const closed = once(holder, 'close');
      holder.stdin?.end();
      await closed;
    });
    if (holder.stdout) await once(holder.stdout, 'data');
    deaf.directory = `/proc/${holder.pid ?? 0}/root${directory}`;
    return deaf;
  }

  /** What waits fails. */
  end(): Promise<void> {
    clearInterval(this.#timer);
    if (this.#device !== null) closeSync(this.#device);
    this.#device = null;
    return Promise.resolve();
  }

  #look(): void {
    if (this.#device === null) return;
    const octets = Buffer.alloc(WRITE_BYTES_MAX + 4096);
    try {
      readSync(this.#device, octets);
    } catch (error) {
      // Nothing there, or not mounted yet.
      if (['EAGAIN', 'EPERM', 'ENODEV'].includes(codeOf(error))) return;
      throw error;
    }
    const request = new Request(octets);
    if (request.opcode === Opcode.INIT) this.#greet(request);
    else if (request.opcode !== Opcode.INTERRUPT) this.asked++;
  }

  #greet(request: Request): void {
    const answer = new DataView(new ArrayBuffer(OUT_HEADER_BYTES + 64));
    const bytes = putInit(new DataView(answer.buffer, OUT_HEADER_BYTES), request);
    if (bytes === null || this.#device === null) throw new Error('the kernel speaks another FUSE');
    putHeader(answer, request.unique, 0, bytes);
    writeSync(this.#device, answer);
  }
}
