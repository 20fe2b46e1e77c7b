// What the tests of QEMU domains share: whether QEMU is here, guests, a console that can be waited on, checkpoints.

import { readdirSync, readFileSync, readSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { Bitmap } from '../../../src/hypervisor/bitmap.js';
import {
  HypervisorError,
  type Domain,
  type DomainEvent,
  type HypervisorErrorCode,
} from '../../../src/hypervisor/port.js';
import type { QemuConfig, QemuSource, QemuTarget } from '../../../src/hypervisor/qemu/index.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';
import { ensureInstalled } from '../../support/tools.js';

export const MIB = 1024 * 1024;

/** The self-checking guest of the embedded hypervisor: multiboot, so that QEMU boots it, too. */
export const TICK_ELF = fileURLToPath(
  new URL('../../../../src/hypervisor/embedded/guest/tick.elf', import.meta.url),
);

/** For `before`: skips the suite, loudly, where there is no QEMU. */
export async function needQemu(context: Mocha.Context): Promise<void> {
  context.timeout(300_000);
  if ((await ensureInstalled('qemu-system-x86_64', 'qemu-system-x86')) === null) context.skip();
}

/** The name of every domain here: what is found by it is ours. */
export const TEST_NAME = `test-${process.pid}`;

export function tickGuest(options: Partial<QemuConfig> = {}, commandLine = ''): QemuConfig {
  return {
    name: TEST_NAME,
    memoryBytes: 16 * MIB,
    accelerator: 'tcg',
    ...options,
    arguments: [
      ...['-kernel', TICK_ELF],
      ...['-append', commandLine === '' ? 'pages=1024 dirty=100 tick_ms=10' : commandLine],
      ...(options.arguments ?? []),
    ],
  };
}

/**
 * A guest that says "." and then obeys each octet of its serial input: p = power off (q35), x = panic (needs
 * -device pvpanic), r = reset, any other: says "." again. As a multiboot image in a temporary file.
 */
export async function withObedientGuest(use: (image: string) => Promise<void>): Promise<void> {
  // say: mov dx, 0x3f8; mov al, '.'; out dx, al
  // poll: mov dx, 0x3fd; in al, dx; test al, 1; jz poll; mov dx, 0x3f8; in al, dx
  // cmp al, 'p'; jne x; mov dx, 0x604; mov ax, 0x2000; out dx, ax; stop: hlt; jmp stop
  // x: cmp al, 'x'; jne r; mov dx, 0x505; mov al, 1; out dx, al; jmp poll
  // r: cmp al, 'r'; jne say; mov al, 0xfe; out 0x64, al; jmp poll
  const code = Buffer.from(
    '66baf803b02eee' +
      '66bafd03eca80174f766baf803ec' +
      '3c70750d66ba040666b8002066eff4ebfd' +
      '3c78750966ba0505b001eeebd4' +
      '3c7275c9b0fee664ebca',
    'hex',
  );
  const loadAt = 0x100000;
  const headerBytes = 32;
  const flags = 0x10000; // the header says where to load and to enter
  const image = Buffer.alloc(headerBytes + code.length);
  const fields = [
    ...[0x1badb002, flags, -(0x1badb002 + flags) >>> 0, loadAt, loadAt],
    ...[loadAt + image.length, loadAt + image.length, loadAt + headerBytes],
  ];
  fields.forEach((field, index) => image.writeUInt32LE(field, index * 4));
  image.set(code, headerBytes);
  const folder = await mkdtemp(join(tmpdir(), 'romulus-image-'));
  try {
    const file = join(folder, 'image');
    await writeFile(file, image);
    await use(file);
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** All that a domain said, and the means to wait for it. */
export class Console {
  text = '';
  private waiting: { readonly found: () => boolean; readonly resolve: () => void }[] = [];

  constructor(domain: Domain) {
    domain.output$.subscribe((bytes) => {
      this.text += Buffer.from(bytes).toString('latin1');
      this.waiting = this.waiting.filter((wait) => {
        if (!wait.found()) return true;
        wait.resolve();
        return false;
      });
    });
  }

  until(found: () => boolean): Promise<void> {
    if (found()) return Promise.resolve();
    return new Promise((resolve) => this.waiting.push({ found, resolve }));
  }

  untilText(text: string): Promise<void> {
    return this.until(() => this.text.includes(text));
  }

  /** The numbers of the ticks that were said, whole lines only. */
  ticks(): number[] {
    return [...this.text.matchAll(/^tick (\d+) ok\r?$/gm)].map((match) => Number(match[1]));
  }
}

export function firstEvent(domain: Domain): Promise<DomainEvent> {
  return new Promise((resolve) => {
    domain.events$.subscribe(resolve);
  });
}

export async function expectCode(
  promise: Promise<unknown>,
  code: HypervisorErrorCode,
  text = '',
): Promise<HypervisorError> {
  try {
    await promise;
  } catch (error) {
    if (!(error instanceof HypervisorError)) throw error;
    expect(error.code, error.message).to.equal(code);
    expect(error.message).to.include(text);
    return error;
  }
  throw new Error(`it should have failed with ${code}`);
}

/** Guest RAM, past all that we keep of it. */
export function ramOf(domain: QemuSource): Buffer {
  const ram = Buffer.alloc(domain.machine.memoryBytes);
  for (let at = 0; at < ram.length;) {
    at += readSync(domain.machine.tracking.ramFd, ram, at, ram.length - at, at);
  }
  return ram;
}

/** Takes checkpoints of a source into a target, as the saver and the restorer would. */
export class Replicator {
  readonly dirtyPages: number[] = [];
  private readonly frames: Uint32Array;
  private readonly slab: Uint8Array;
  private readonly dirty: Bitmap;
  private epoch = 0;

  constructor(
    private readonly source: QemuSource,
    private readonly target: QemuTarget,
  ) {
    const pages = source.machine.memoryBytes / PAGE_SIZE;
    this.frames = new Uint32Array(pages);
    this.slab = new Uint8Array(new SharedArrayBuffer(source.machine.memoryBytes));
    this.dirty = new Bitmap(pages);
  }

  async begin(): Promise<void> {
    const all = Uint32Array.from({ length: this.dirty.size }, (_, pfn) => pfn);
    await this.target.populate(all, all.length, new Uint32Array(all.length));
    await this.source.enableLogDirty();
  }

  /** One epoch; `inPause` is called while the guest is stopped. */
  async checkpoint(inPause: () => unknown = () => undefined): Promise<void> {
    const { source, target, frames, slab, dirty } = this;
    await source.prepareSuspend();
    await source.suspend();
    const { dirtyCount } = await source.cleanLogDirty(dirty);
    if (this.epoch++ === 0) dirty.setAll();
    else expect(dirty.count()).to.equal(dirtyCount);
    let count = 0;
    for (let pfn = dirty.next(0); pfn >= 0; pfn = dirty.next(pfn + 1)) frames[count++] = pfn;
    await source.copyPages(frames, count, slab, 0);
    const context = await source.emulatorContext();
    await inPause();
    await source.resume();
    this.dirtyPages.push(count);
    await target.writePages(frames, count, slab);
    await target.setEmulatorContext(context);
  }
}

/** Processes whose command line includes `text`, by their ids. */
export function processesWith(text: string): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${pid}/cmdline`, 'latin1').includes(text);
      } catch {
        return false; // it has just ended
      }
    })
    .map(Number);
}
