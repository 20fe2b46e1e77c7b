// Dirty tracking by serving guest RAM. The guest's writes go to the kernel's page cache, which knows which pages they
// touch; fdatasync write-protects them and sends them to the server, which updates the image and logs what was written.
// So the image is at most one fdatasync behind, and a second one right after it has little left to do: many pages are
// flushed while the guest runs. Few are not: their flush in the pause takes no longer than the device state, which is
// saved meanwhile, and the guest would have to fault on them twice.
//
//   guest ──▶ page cache ──fdatasync: WRITE──▶ server process ──▶ image, log (files) ──▶ we
//
// What we write ourselves, into a standby, the server puts into image and page cache (store.ts), and its failure is told at
// once; the log does not have it. A guest’s write that fails leaves a page that only the page cache has, for as long as it keeps it, and is told to
// the next fdatasync only. So one failure is for ever, and so is the server's end.

import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync, readSync } from 'node:fs';
import { Duplex } from 'node:stream';
import type { FileHandle } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { asError } from '../../../../errors.js';
import { PAGE_SIZE } from '../../../../stream/format.js';
import { HypervisorError, failed, unsupported } from '../../../port.js';
import { Bitmap } from '../../../bitmap.js';
import { Loss, Marks, type DirtyTracking } from '../dirty.js';
import { onProcessExit } from '../../process/exit-hooks.js';
import { ServedAccess } from '../ram-access.js';
import { openAnonymousFile, readFrames } from '../ram-file.js';
import type { MemoryPlace } from '../reserve.js';
import { ORDERS_FD } from './descriptors.js';
import { liftWritebackLimit, openMounted } from './mount.js';
import { SLAB_BYTES, StoreClient } from './store.js';
import { LOG_BYTES, WriteLogReader } from './write-log.js';

const SERVER = fileURLToPath(new URL('./process.js', import.meta.url));
const NR_DIRTY = Buffer.from('\nnr_dirty ');
const STDERR_CHARACTERS_MAX = 2000;
/** Of scattered pages a millisecond flushes some 60 to 100; the device state takes one to two. */
const FEW_PAGES = 128;
/** Who serves the file, and does not answer to who opens it, is ended. */
const START_TIMEOUT_MS = 20_000;

export class FuseTracking implements DirtyTracking {
  readonly way = 'fuse';
  readonly marks: Marks;
  readonly ram: ServedAccess;
  readonly #file: FileHandle;
  readonly #fds: MemoryFiles;
  readonly #log: WriteLogReader;
  readonly #server: Server;
  readonly #fresh: Bitmap;
  readonly #hostDirty = new HostDirtyPages();
  /** The host's count after the last capture. */
  #dirtyBefore: number | null = null;
  /** Pages that the last capture found. */
  #captured = Infinity;
  readonly #loss = new Loss();
  #checking: Promise<void> | null = null;
  #closed: Promise<void> | null = null;

  /**
   * `name` is for people who list processes.
   * @throws HypervisorError UNSUPPORTED if there is no FUSE for us here, OUT_OF_MEMORY or FAILED
   */
  static async open(bytes: number, name: string, place: MemoryPlace = {}): Promise<FuseTracking> {
    let deviceFd: number;
    try {
      deviceFd = openSync('/dev/fuse', 'r+');
    } catch (error) {
      const cause = asError(error);
      throw unsupported(`/dev/fuse cannot be opened: ${cause.message}`, {}, cause);
    }
    let deviceIsOpen = true;
    const closeDevice = (): void => {
      if (deviceIsOpen) closeSync(deviceFd);
      deviceIsOpen = false;
    };
    const files: number[] = [];
    let server: Server | null = null;
    const limit = setTimeout(() => server?.kill(), START_TIMEOUT_MS);
    try {
      const imageFd = await openAnonymousFile(bytes, place);
      files.push(imageFd);
      const logFd = await openAnonymousFile(LOG_BYTES, place);
      files.push(logFd);
      const slabFd = await openAnonymousFile(SLAB_BYTES, place);
      files.push(slabFd);
      const starting = (server = new Server(bytes, name, [deviceFd, imageFd, logFd, slabFd]));
      const file = await openMounted(deviceFd, () => {
        // The server has it: when that ends, nobody waits for an answer that will not come.
        closeDevice();
        starting.begin();
      });
      liftWritebackLimit(file.fd);
      return new FuseTracking(file, server, { imageFd, logFd, slabFd });
    } catch (error) {
      for (const fd of files) closeSync(fd);
      if (error instanceof HypervisorError) throw error;
      const cause = asError(error);
      const said = server?.said.trim() ?? '';
      throw failed(`guest RAM cannot be served: ${said === '' ? cause.message : said}`, {}, cause);
    } finally {
      clearTimeout(limit);
      closeDevice();
      // Nothing if it serves; if it was never told to begin, it ends.
      server?.dismiss();
    }
  }

  private constructor(file: FileHandle, server: Server, fds: MemoryFiles) {
    this.#file = file;
    const store = new StoreClient(fds.slabFd, server.orders);
    this.ram = new ServedAccess(file.fd, store, (cause) => this.#failed(cause));
    this.#fds = fds;
    this.#log = new WriteLogReader(fds.logFd);
    this.#server = server;
    const pages = server.bytes / PAGE_SIZE;
    this.marks = new Marks(pages);
    this.#fresh = new Bitmap(pages);
    void server.ended.then(() => {
      if (this.#closed === null) this.#loss.report(this.#lossOf('the process that serves it has ended'));
    });
  }

  get ramFd(): number {
    return this.#file.fd;
  }

  get lost(): Promise<HypervisorError> {
    return this.#loss.lost;
  }

  async begin(): Promise<void> {
    await this.capture();
    this.marks.clear();
  }

  async prepare(): Promise<void> {
    if (this.#captured <= FEW_PAGES && this.#grown() <= FEW_PAGES) return;
    await this.#attempt(() => this.#file.datasync());
  }

  async capture(): Promise<void> {
    await this.#attempt(async () => {
      await this.#file.datasync();
      this.#dirtyBefore = this.#hostDirty.count();
      this.#fresh.clearAll();
      this.#log.read(this.#fresh);
      this.marks.or(this.#fresh.words);
      this.#captured = this.#fresh.count();
    });
  }

  end(): Promise<void> {
    return Promise.resolve();
  }

  /** Of the image, which is a file in memory: it does not wait for who serves it. */
  copyPages(gfns: Uint32Array, count: number, slab: Uint8Array, offset: number): void {
    readFrames(this.#fds.imageFd, gfns, count, slab, offset);
  }

  check(): Promise<void> {
    this.#checking ??= this.#attempt(async () => {
      await this.#file.datasync();
      await this.ram.written();
    }).finally(() => (this.#checking = null));
    return this.#checking;
  }

  /** A server that is gone fails every request, answered or not: also of one that was stopped. */
  abandon(): void {
    this.#server.kill();
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    this.abandon();
    await this.ram.close();
    // What was not written back is nobody's any more; whose server has ended is closed nevertheless.
    await this.#file.close().catch(() => undefined);
    const { imageFd, logFd, slabFd } = this.#fds;
    for (const fd of [imageFd, logFd, slabFd]) closeSync(fd);
    this.#hostDirty.close();
    await this.#server.ended;
  }

  /** Pages that became dirty on this host since the last capture, more or less. */
  #grown(): number {
    const now = this.#hostDirty.count();
    return now === null || this.#dirtyBefore === null ? Infinity : now - this.#dirtyBefore;
  }

  async #attempt(action: () => Promise<void>): Promise<void> {
    this.#loss.requireNone();
    try {
      await action();
    } catch (error) {
      const cause = asError(error);
      await new Promise((resolve) => setImmediate(resolve)); // what the server said before is read in this turn
      throw this.#failed(cause);
    }
    // What was written before the server ended and what was not is not known.
    this.#loss.requireNone();
  }

  #failed(cause: Error): HypervisorError {
    return this.#closed === null
      ? this.#loss.report(this.#lossOf(cause.message, cause))
      : new HypervisorError('DOMAIN_GONE', 'guest RAM was given up', {}, { cause });
  }

  /** The server's own words say more than the kernel's. */
  #lossOf(otherwise: string, cause?: Error): HypervisorError {
    const said = this.#server.said.trim();
    return failed(`guest RAM is lost: ${said === '' ? otherwise : said}`, {}, cause);
  }
}

/** Files in memory that we share with the server. */
interface MemoryFiles {
  readonly imageFd: number;
  readonly logFd: number;
  readonly slabFd: number;
}

/** The serving process. It outlives us for as long as anybody holds the files. */
class Server {
  readonly bytes: number;
  readonly ended: Promise<void>;
  said = '';
  readonly #child: ChildProcess;

  /** Where it is ordered to store pages. */
  readonly orders: Duplex;

  /** `fds`: of the device, the image, the log and the slab. */
  constructor(bytes: number, name: string, fds: readonly number[]) {
    this.bytes = bytes;
    this.#child = spawn(process.execPath, [SERVER, String(bytes), name], {
      stdio: ['pipe', 'ignore', 'pipe', ...fds, 'pipe'],
      detached: true, // what a terminal sends to us is not for it
    });
    const orders = (this.#child.stdio as readonly unknown[])[ORDERS_FD];
    if (!(orders instanceof Duplex)) throw failed('the server has no pipes');
    this.orders = orders;
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.said = (this.said + chunk.toString()).slice(-STDERR_CHARACTERS_MAX);
    });
    this.#child.stdin?.on('error', () => undefined); // it has ended: told by whoever needs it
    // A thread of ours that waits for it could not end.
    const unhook = onProcessExit(() => this.#child.kill('SIGKILL'));
    this.ended = new Promise((resolve) => {
      this.#child.on('close', () => {
        unhook();
        resolve();
      });
      this.#child.on('error', (error) => {
        this.said = error.message;
        resolve();
      });
    });
  }

  begin(): void {
    this.#child.stdin?.write('\n');
  }

  dismiss(): void {
    this.#child.stdin?.end();
  }

  kill(): void {
    this.#child.kill('SIGKILL');
  }
}

/**
 * How many pages of files wait to be written back on this host, as the kernel counts them. Guest RAM in a file is among
 * them, so the growth since our last flush tells roughly how much the next one will have to do. Roughly: others write
 * files, too, and each CPU may keep up to 125 pages to itself before it tells.
 */
class HostDirtyPages {
  readonly #fd: number | null;
  /** The line stands in the first kilobyte or two. */
  readonly #text = Buffer.alloc(4096);

  constructor() {
    let fd: number | null = null;
    try {
      fd = openSync('/proc/vmstat', 'r');
    } catch {
      // No /proc: the count is not known.
    }
    this.#fd = fd;
  }

  /** Takes some 20 microseconds. Null: not known. */
  count(): number | null {
    if (this.#fd === null) return null;
    const length = readSync(this.#fd, this.#text, 0, this.#text.length, 0);
    const at = this.#text.subarray(0, length).indexOf(NR_DIRTY);
    if (at < 0) return null;
    const from = at + NR_DIRTY.length;
    return Number.parseInt(this.#text.toString('latin1', from, from + 20), 10);
  }

  close(): void {
    if (this.#fd !== null) closeSync(this.#fd);
  }
}
