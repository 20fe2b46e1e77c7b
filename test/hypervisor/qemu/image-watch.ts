// Looks at both images of a replicated guest, past all that Romulus keeps of them, and says where they differ:
//
//   primary     suspend ─┤ RAM file copied · · · saver copies its pages · · · RAM file compared, device state kept ├─ resume
//   secondary     commit ─┤ RAM file compared ├─ next …        takeover ─┤ RAM file and device state compared ├─ runs
//
// All is done in one turn of the event loop each, and so between two steps of the services.

import { readSync } from 'node:fs';
import type { QemuPrimary, QemuSource, QemuTarget } from '../../../src/hypervisor/qemu/index.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';

const PIECE_BYTES = 256 * PAGE_SIZE;

export interface Difference {
  readonly epoch: number;
  readonly what: 'RAM in the pause' | 'RAM' | 'device state' | 'no image of this epoch';
  /** Of RAM: the first page that differs. */
  readonly pfn?: number;
}

interface Image {
  epoch: number;
  readonly ram: Buffer;
  deviceState: Uint8Array;
}

export class ImageWatch {
  readonly differences: Difference[] = [];
  readonly memoryBytes: number;
  /** The next epoch is captured while the one before is being applied, but not the one after that. */
  readonly #images: readonly [Image, Image];
  readonly #piece = Buffer.alloc(PIECE_BYTES);
  /** The epoch that was taken over from. */
  takenOver: number | null = null;
  #epochs = 0;
  #committed = -1;
  #ranSeconds = 0;
  #runsSince: number | null = null;

  constructor(memoryBytes: number) {
    this.memoryBytes = memoryBytes;
    const image = () => ({ epoch: -1, ram: Buffer.alloc(memoryBytes), deviceState: new Uint8Array(0) });
    this.#images = [image(), image()];
  }

  /** Time that the guest ran since restartClock(), pauses left out. */
  get ranSeconds(): number {
    return this.#ranSeconds;
  }

  restartClock(): void {
    this.#ranSeconds = 0;
  }

  /** Each of its pauses is an epoch of one stream, from 0 on. */
  watch(domain: QemuPrimary): QemuPrimary {
    const suspend = domain.suspend.bind(domain);
    const resume = domain.resume.bind(domain);
    domain.suspend = async () => {
      await suspend();
      const image = this.#image(this.#epochs);
      image.epoch = this.#epochs;
      this.#eachPiece(domain, (piece, at) => piece.copy(image.ram, at));
    };
    domain.resume = async () => {
      const epoch = this.#epochs++;
      const image = this.#image(epoch);
      image.deviceState = domain.machine.deviceState.read();
      this.#compareRam(domain, image, 'RAM in the pause');
      await resume();
      const pausedMs = domain.lastPause?.total ?? 0;
      const now = performance.now();
      if (this.#runsSince !== null) this.#ranSeconds += (now - this.#runsSince - pausedMs) / 1000;
      this.#runsSince = now;
    };
    return domain;
  }

  /** To be called in the turn of the event loop in which the epoch is committed. */
  committed(epoch: number, domain: QemuTarget): void {
    const image = this.#image(epoch);
    if (image.epoch !== epoch) {
      this.differences.push({ epoch, what: 'no image of this epoch' });
      return;
    }
    this.#committed = epoch;
    this.#compareRam(domain, image, 'RAM');
  }

  /** The device state is given to the standby when it takes over: it is that of the last commit, and so is the RAM. */
  watchTakeover(domain: QemuTarget): QemuTarget {
    const setEmulatorContext = domain.setEmulatorContext.bind(domain);
    domain.setEmulatorContext = (context) => {
      const image = this.#image(this.#committed);
      this.takenOver = this.#committed;
      this.#compareRam(domain, image, 'RAM');
      if (Buffer.compare(context, image.deviceState) !== 0) {
        this.differences.push({ epoch: image.epoch, what: 'device state' });
      }
      return setEmulatorContext(context);
    };
    return domain;
  }

  #image(epoch: number): Image {
    return this.#images[epoch % 2 === 0 ? 0 : 1];
  }

  #compareRam(
    domain: QemuSource | QemuTarget,
    { epoch, ram }: Image,
    what: 'RAM in the pause' | 'RAM',
  ): void {
    this.#eachPiece(domain, (piece, at) => {
      if (piece.compare(ram, at, at + piece.length) === 0) return true;
      let from = 0;
      while (piece.compare(ram, at + from, at + from + PAGE_SIZE, from, from + PAGE_SIZE) === 0)
        from += PAGE_SIZE;
      this.differences.push({ epoch, what, pfn: (at + from) / PAGE_SIZE });
      return false;
    });
  }

  /** Until `use` says false. */
  #eachPiece(domain: QemuSource | QemuTarget, use: (piece: Buffer, at: number) => unknown): void {
    for (let at = 0; at < this.memoryBytes; at += PIECE_BYTES) {
      const piece = this.#piece.subarray(0, Math.min(PIECE_BYTES, this.memoryBytes - at));
      const count = readSync(domain.machine.tracking.ramFd, piece, 0, piece.length, at);
      if (count !== piece.length) throw new Error(`the RAM file gave ${count} octets at ${at}`);
      if (use(piece, at) === false) return;
    }
  }
}
