// Dirty tracking by serving guest RAM. The guest's writes go to the kernel's page cache, which knows which pages they
// touch; fdatasync write-protects them and sends them here, where they update the image and leave their marks. So the
// image is at most one fdatasync behind, and a second one right after it has little left to do.
//
//   guest ──▶ page cache ──fdatasync: WRITE──▶ thread ──▶ image, marks

import { closeSync, openSync } from 'node:fs';
import type { FileHandle } from 'node:fs/promises';
import { Worker } from 'node:worker_threads';
import { asError } from '../../../errors.js';
import { PAGE_SIZE } from '../../../stream/format.js';
import { HypervisorError } from '../../port.js';
import { Marks, type DirtyTracking } from '../dirty.js';
import { RamImage, allocateImage } from '../image.js';
import { liftWritebackLimit, openMounted } from './mount.js';
import type { FuseStart } from './worker.js';

export class FuseTracking implements DirtyTracking {
  readonly way = 'fuse';
  readonly image: RamImage;
  readonly marks: Marks;
  readonly #file: FileHandle;
  readonly #serving: Promise<void>;
  #failure: HypervisorError | null = null;
  #closed: Promise<void> | null = null;

  /** Fails with UNSUPPORTED if there is no FUSE for us here, or FAILED. */
  static async open(bytes: number): Promise<FuseTracking> {
    let deviceFd: number;
    try {
      deviceFd = openSync('/dev/fuse', 'r+');
    } catch (error) {
      const cause = asError(error);
      throw new HypervisorError('UNSUPPORTED', `/dev/fuse cannot be opened: ${cause.message}`, {}, { cause });
    }
    const memory = allocateImage(bytes);
    const marks = new Marks(bytes / PAGE_SIZE);
    // Once there is a thread, it closes the device: when nobody holds the file any more.
    const workers: Worker[] = [];
    try {
      const file = await openMounted(deviceFd, () => {
        const start: FuseStart = { deviceFd, image: memory, marks: marks.memory };
        workers.push(
          new Worker(new URL('./worker.js', import.meta.url), {
            name: 'qemu RAM server',
            workerData: start,
            execArgv: [], // the program's own (--input-type, --inspect, …) are not for this thread
            trackUnmanagedFds: false, // it closes a descriptor that was opened here
          }),
        );
      });
      const [worker] = workers;
      if (!worker) throw new HypervisorError('FAILED', 'The file system was not served.');
      liftWritebackLimit(file.fd);
      return new FuseTracking(file, worker, new RamImage(memory), marks);
    } catch (error) {
      if (workers.length === 0) closeSync(deviceFd);
      throw error;
    }
  }

  private constructor(file: FileHandle, worker: Worker, image: RamImage, marks: Marks) {
    this.#file = file;
    this.image = image;
    this.marks = marks;
    this.#serving = new Promise((resolve) => {
      worker.on('error', (error) => {
        this.#failure = new HypervisorError(
          'FAILED',
          'The thread that serves guest RAM has failed.',
          {},
          { cause: asError(error) },
        );
      });
      worker.on('exit', () => resolve());
    });
  }

  get ramFd(): number {
    return this.#file.fd;
  }

  async begin(): Promise<void> {
    await this.capture();
    // A mark that comes between the capture and here is of a page that is in the image: it is part of the start.
    this.marks.clear();
  }

  prepare(): Promise<void> {
    return this.capture();
  }

  async capture(): Promise<void> {
    try {
      await this.#file.datasync();
    } catch (error) {
      throw (
        this.#failure ??
        new HypervisorError('FAILED', 'Guest RAM cannot be flushed.', {}, { cause: asError(error) })
      );
    }
  }

  end(): Promise<void> {
    return Promise.resolve();
  }

  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    await this.#file.close();
    await this.#serving;
  }
}
