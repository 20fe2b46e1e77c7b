// The agent's side of the process that writes to files (file-process.ts): it is started with the first file and ends
// with the last. One has a thread for each of its files; for more files there are more processes.

import { spawn, type ChildProcess } from 'node:child_process';
import type { Socket } from 'node:net';
import { fileURLToPath } from 'node:url';
import { OutputError } from './error.js';
import {
  encodeMessage,
  MessageReader,
  SOCKET_FD,
  type FileReply,
  type FileRequest,
  type FileTarget,
} from './file-messages.js';
import { mayHang } from './non-blocking.js';

const PROGRAM = fileURLToPath(new URL('./file-process.js', import.meta.url));
const FILES_MAX = 32;

export interface Written {
  readonly taken: number;
  /** Why it was not all. */
  readonly error: Error | null;
}

export interface OpenFile {
  /** @throws Node's system error; OutputError WRITER_ENDED */
  open(target: FileTarget): Promise<void>;
  /** Never fails. `whole`: not before all are written, or never can be. `untilMs`: see FileRequest. */
  write(target: FileTarget, bytes: Uint8Array, whole: boolean, untilMs: number): Promise<Written>;
  close(): void;
  /** Its process has ended: of no use any more. */
  readonly isGone: boolean;
}

type Unnumbered<Request> = Request extends unknown ? Omit<Request, 'id' | 'file'> : never;

const running = new Set<WritingProcess>();
let nextFile = 0;

export function openInWritingProcess(): OpenFile {
  for (const each of running) if (each.fileCount < FILES_MAX) return each.open(nextFile++);
  return new WritingProcess().open(nextFile++);
}

class WritingProcess {
  /** Null: it could not be started. */
  readonly #socket: Socket | null;
  readonly #replies = new MessageReader<FileReply>();
  readonly #files = new Set<number>();
  readonly #pending = new Map<number, (written: Written) => void>();
  #nextRequest = 0;
  #gone = false;

  constructor() {
    this.#socket = this.#start();
    if (this.#socket) running.add(this);
    else this.#gone = true;
  }

  #start(): Socket | null {
    let child: ChildProcess;
    try {
      child = spawn(process.execPath, [PROGRAM], {
        env: { UV_THREADPOOL_SIZE: String(FILES_MAX + 1) },
        // Only what it has to write to: it must not keep a pipe open that is ours.
        stdio: ['ignore', 'ignore', 'ignore', 'pipe', mayHang(1) ? 1 : 'ignore', mayHang(2) ? 2 : 'ignore'],
        detached: true, // what a terminal sends to us is not for it
      });
    } catch {
      return null; // told by whoever finds it gone, and tried again
    }
    child.on('error', (error) => this.#ended(error.message));
    child.on('exit', (code, signal) => this.#ended(signal ?? `exit code ${code ?? 0}`));
    child.unref();
    // A pipe of Node's is a socket pair. Not there: no descriptors were left.
    const socket = (child as Partial<ChildProcess>).stdio?.[SOCKET_FD] as Socket | undefined;
    socket?.unref();
    socket?.on('data', (chunk: Buffer) => {
      for (const reply of this.#replies.read(chunk)) this.#receive(reply);
    });
    socket?.on('error', (error) => this.#ended(error.message));
    return socket ?? null;
  }

  /** Also those that were closed and whose thread is not free again, which may be never. */
  get fileCount(): number {
    return this.#files.size;
  }

  open(file: number): OpenFile {
    this.#files.add(file);
    const isGone = () => this.#gone;
    return {
      open: async (target) => {
        const { error } = await this.#request(file, { kind: 'open', target });
        if (error) throw error;
      },
      write: (target, bytes, whole, untilMs) =>
        this.#request(file, { kind: 'write', target, bytes, whole, untilMs }),
      close: () => this.#close(file),
      get isGone() {
        return isGone();
      },
    };
  }

  #close(file: number): void {
    void this.#request(file, { kind: 'close' }).then(() => {
      this.#files.delete(file);
      if (this.#files.size > 0 || this.#gone) return;
      running.delete(this);
      this.#socket?.end();
    });
  }

  #request(file: number, request: Unnumbered<FileRequest>): Promise<Written> {
    if (this.#gone) return Promise.resolve(gone('it is gone'));
    const id = this.#nextRequest++;
    return new Promise((resolve) => {
      this.#pending.set(id, resolve);
      this.#socket?.write(encodeMessage({ ...request, id, file }));
    });
  }

  #receive({ id, taken, error }: FileReply): void {
    const settle = this.#pending.get(id);
    this.#pending.delete(id);
    settle?.({ taken, error: error ? Object.assign(new Error(error.message), { code: error.code }) : null });
  }

  #ended(how: string): void {
    if (this.#gone) return;
    this.#gone = true;
    running.delete(this);
    const pending = [...this.#pending.values()];
    this.#pending.clear();
    for (const settle of pending) settle(gone(how));
  }
}

function gone(how: string): Written {
  const error = new OutputError('WRITER_ENDED', `the process that writes to files has ended: ${how}`);
  return { taken: 0, error };
}
