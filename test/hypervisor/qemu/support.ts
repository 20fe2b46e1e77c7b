// What the tests of QEMU domains share: whether QEMU is here, guests, checkpoints.

import { readSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect } from 'chai';
import { Bitmap } from '../../../src/hypervisor/bitmap.js';
import { HypervisorError } from '../../../src/hypervisor/port.js';
import { FuseTracking } from '../../../src/hypervisor/qemu/memory/fuse/tracking.js';
import type { DirtyWay, QemuConfig, QemuSource, QemuTarget } from '../../../src/hypervisor/qemu/index.js';
import type { ConsoleWriter } from '../../../src/output/console.js';
import { PAGE_SIZE } from '../../../src/stream/format.js';
import { QEMU } from '../../support/qemu.js';
import { ensureInstalled } from '../../support/tools.js';
import { MIB, withImage } from '../support.js';

/** The self-checking guest of the embedded hypervisor: multiboot, so that QEMU boots it, too. */
export const TICK_ELF = fileURLToPath(
  new URL('../../../../src/hypervisor/embedded/guest/tick.elf', import.meta.url),
);

/** For `before`: skips the suite, loudly, where there is no QEMU. */
export async function needQemu(context: Mocha.Context): Promise<void> {
  context.timeout(300_000);
  if ((await ensureInstalled(QEMU, 'qemu-system-x86')) === null) context.skip();
}

/** Whether changed pages can be found in this way here; where not, a loud line says why. */
export async function canTrack(way: DirtyWay): Promise<boolean> {
  if (way === 'compare') return true;
  try {
    await (await FuseTracking.open(MIB, TEST_NAME)).close();
    return true;
  } catch (error) {
    if (!(error instanceof HypervisorError) || error.code !== 'UNSUPPORTED') throw error;
    console.log(`\n    SKIPPED: ${error.message}\n`);
    return false;
  }
}

/** The name of every domain here: what is found by it is ours. */
export const TEST_NAME = `test-${process.pid}`;

/** For QEMU: the self-checking guest, 16 MiB do for it. */
export const TICK_ARGUMENTS: readonly string[] = tickArguments('pages=1024 dirty=100 tick_ms=10');

function tickArguments(commandLine: string): string[] {
  return ['-kernel', TICK_ELF, '-append', commandLine];
}

export function tickGuest(options: Partial<QemuConfig> = {}, commandLine = ''): QemuConfig {
  return {
    name: TEST_NAME,
    memoryBytes: 16 * MIB,
    accelerator: 'tcg',
    ...options,
    arguments: [
      ...(commandLine === '' ? TICK_ARGUMENTS : tickArguments(commandLine)),
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
  await withImage(code, use);
}

/** Where a service lets a domain's output out. */
export class Screen implements ConsoleWriter {
  text = '';

  write(bytes: Uint8Array): void {
    this.text += Buffer.from(bytes).toString('latin1');
  }

  close(): void {
    // Nothing is held.
  }
}

/** Guest RAM, past all that we keep of it. */
export function ramOf(domain: QemuSource | QemuTarget): Buffer {
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
    await target.checkpoint(context);
  }
}
