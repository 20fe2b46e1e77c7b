// Dirty tracking by serving guest RAM. The guest's writes go to the kernel's page cache, which knows which pages they
// touch; fdatasync write-protects them and sends them to the server, where they update the image and leave their marks.
// So the image is at most one fdatasync behind, and a second one right after it has little left to do: many pages are
// flushed while the guest runs. Few are not: their flush in the pause takes no longer than the device state, which is
// saved meanwhile, and the guest would have to fault on them twice.
//
//   guest ──▶ page cache ──fdatasync: WRITE──▶ server process ──▶ image (a file), marks ──▶ we

import { spawn, type ChildProcess } from 'node:child_process';
import { closeSync, openSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { asError } from '../../../errors.js';
import { PAGE_SIZE } from '../../../stream/format.js';
import { HypervisorError } from '../../port.js';
import { Bitmap } from '../../bitmap.js';
import { Marks, type DirtyTracking } from '../dirty.js';
import { openAnonymousFile, readFrames } from '../ram-file.js';
import { HostDirtyPages } from './host-dirty.js';
import { liftWritebackLimit, openMounted, type MountedFiles } from './mount.js';

const SERVER = fileURLToPath(new URL('./process.js', import.meta.url));
const STDERR_CHARACTERS_MAX = 2000;
/** Of scattered pages a millisecond flushes some 60 to 100; the device state takes one to two. */
const FEW_PAGES = 128;

export class FuseTracking implements DirtyTracking {
  readonly way = 'fuse';
  readonly marks: Marks;
  readonly #files: MountedFiles;
  readonly #imageFd: number;
  readonly #server: Server;
  readonly #fresh: Bitmap;
  readonly #hostDirty = new HostDirtyPages();
  /** The host's count after the last capture. */
  #dirtyBefore: number | null = null;
  /** Pages that the last capture found. */
  #captured = Infinity;
  #closed: Promise<void> | null = null;

  /** `name` is for people who list processes. Fails with UNSUPPORTED if there is no FUSE for us here, or FAILED. */
  static async open(bytes: number, name: string): Promise<FuseTracking> {
    let deviceFd: number;
    try {
      deviceFd = openSync('/dev/fuse', 'r+');
    } catch (error) {
      const cause = asError(error);
      throw new HypervisorError('UNSUPPORTED', `/dev/fuse cannot be opened: ${cause.message}`, {}, { cause });
    }
    let imageFd: number | null = null;
    let server: Server | null = null;
    try {
      imageFd = await openAnonymousFile(bytes);
      const starting = (server = new Server({ deviceFd, imageFd, bytes, name }));
      const files = await openMounted(deviceFd, () => starting.begin());
      liftWritebackLimit(files.ram.fd);
      return new FuseTracking(files, imageFd, starting);
    } catch (error) {
      if (imageFd !== null) closeSync(imageFd);
      throw error;
    } finally {
      // The server has it: when that ends, nobody waits for an answer that will not come.
      closeSync(deviceFd);
      // Nothing if it serves; if it was never told to begin, it ends.
      server?.dismiss();
    }
  }

  private constructor(files: MountedFiles, imageFd: number, server: Server) {
    this.#files = files;
    this.#imageFd = imageFd;
    this.#server = server;
    const pages = server.bytes / PAGE_SIZE;
    this.marks = new Marks(pages);
    this.#fresh = new Bitmap(pages);
  }

  get ramFd(): number {
    return this.#files.ram.fd;
  }

  async begin(): Promise<void> {
    await this.capture();
    this.marks.clear();
  }

  async prepare(): Promise<void> {
    if (this.#captured <= FEW_PAGES && this.#grown() <= FEW_PAGES) return;
    await this.#attempt(() => this.#files.ram.datasync());
  }

  async capture(): Promise<void> {
    await this.#attempt(async () => {
      await this.#files.ram.datasync();
      this.#dirtyBefore = this.#hostDirty.count();
      const { words } = this.#fresh;
      const fresh = new Uint8Array(words.buffer);
      for (let at = 0; at < fresh.length;) {
        const { bytesRead } = await this.#files.marks.read(fresh, at, fresh.length - at, at);
        if (bytesRead === 0) throw new Error('the marks end too early');
        at += bytesRead;
      }
      this.marks.or(words);
      this.#captured = this.#fresh.count();
    });
  }

  end(): Promise<void> {
    return Promise.resolve();
  }

  copyPages(gfns: Uint32Array, count: number, slab: Uint8Array, offset: number): void {
    readFrames(this.#imageFd, gfns, count, slab, offset);
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    await this.#files.ram.close();
    await this.#files.marks.close();
    closeSync(this.#imageFd);
    this.#hostDirty.close();
    await this.#server.ended;
  }

  /** Pages that became dirty on this host since the last capture, more or less. */
  #grown(): number {
    const now = this.#hostDirty.count();
    return now === null || this.#dirtyBefore === null ? Infinity : now - this.#dirtyBefore;
  }

  async #attempt(action: () => Promise<void>): Promise<void> {
    try {
      await action();
    } catch (error) {
      const cause = asError(error);
      const said = this.#server.said.trim();
      throw new HypervisorError(
        'FAILED',
        `Guest RAM cannot be captured: ${said === '' ? cause.message : said}`,
        {},
        { cause },
      );
    }
  }
}

interface ServerOptions {
  readonly deviceFd: number;
  readonly imageFd: number;
  readonly bytes: number;
  readonly name: string;
}

/** The serving process. It outlives us for as long as anybody holds the files. */
class Server {
  readonly bytes: number;
  readonly ended: Promise<void>;
  said = '';
  readonly #child: ChildProcess;

  constructor({ deviceFd, imageFd, bytes, name }: ServerOptions) {
    this.bytes = bytes;
    this.#child = spawn(process.execPath, [SERVER, String(bytes), name], {
      stdio: ['pipe', 'ignore', 'pipe', deviceFd, imageFd],
      detached: true, // what a terminal sends to us is not for it
    });
    this.#child.stderr?.on('data', (chunk: Buffer) => {
      this.said = (this.said + chunk.toString()).slice(-STDERR_CHARACTERS_MAX);
    });
    this.#child.stdin?.on('error', () => undefined); // it has ended: told by whoever needs it
    this.ended = new Promise((resolve) => {
      this.#child.on('close', () => resolve());
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
}
