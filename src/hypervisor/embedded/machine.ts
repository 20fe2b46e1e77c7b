// One x86 PC: v86 with a clock of ours, exact stop and go, and a state without RAM. Lives in a worker; everything here
// is synchronous, so while one of these functions runs, the guest does not.

import { readFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { crc32 } from 'node:zlib';
import type { V86Options } from 'v86';
import { asError } from '../../errors.js';
import { valueAt } from '../../stream/bounds.js';
import { PAGE_SIZE } from '../../stream/format.js';
import { HypervisorError, badConfiguration, failed } from '../port.js';
import { imageRoles, type ImageRole, type MachineSpec } from './config.js';
import { decodeContext, encodeContext, type MachineIdentity } from './context.js';
import { MachineDisk } from './machine-disk.js';
import type { WorkerStart } from './messages.js';
import type { Ram } from './scan.js';
import { loadV86, type V86Cpu, type V86Emulator, type V86Main } from './v86.js';

/**
 * v86 cannot restore a state into a machine without disk and CD drive: who names none gets empty ones. That disk is not
 * replicated, but a part of the context.
 */
const EMPTY_DISK_BYTES = 2048;
/** Of the data of block writes that are kept at once. */
const DISK_POOL_BYTES = 64 * 1024 * 1024;
/** The smallest video memory that v86 has. */
const VIDEO_MEMORY_BYTES = 256 * 1024;
const INTERRUPT_FLAG = 0x200;

export interface MachineHooks {
  output(byte: number): void;
  /** The guest halted with interrupts off: nothing can wake it. */
  halted(): void;
  crashed(error: Error): void;
  /** Little room is left for what the guest writes to its disk. */
  pressed(): void;
}

/** @throws HypervisorError FAILED */
export async function v86Version(): Promise<string> {
  const file = createRequire(import.meta.url).resolve('v86/package.json');
  const parsed: unknown = JSON.parse(await readFile(file, 'utf8'));
  if (typeof parsed === 'object' && parsed !== null && 'version' in parsed) return String(parsed.version);
  throw failed('v86 has no version', { file });
}

async function readImages(spec: MachineSpec): Promise<Partial<Record<ImageRole, { buffer: ArrayBuffer }>>> {
  const images: Partial<Record<ImageRole, { buffer: ArrayBuffer }>> = {};
  for (const role of imageRoles) {
    const file = spec.images[role];
    if (file === undefined) continue;
    const content = await readFile(file);
    const buffer = new ArrayBuffer(content.length);
    content.copy(Buffer.from(buffer));
    images[role] = { buffer };
  }
  return images;
}

/** The content of the disk: the image, if there is one, and zeroes. @throws HypervisorError BAD_CONFIGURATION */
function diskOf({ diskBytes }: MachineSpec, image: { buffer: ArrayBuffer } | undefined): ArrayBuffer {
  const content = new Uint8Array(diskBytes || EMPTY_DISK_BYTES);
  if (image && image.buffer.byteLength > content.length) {
    const facts = { key: 'guest.hda', value: image.buffer.byteLength, diskBytes };
    throw badConfiguration('the disk has grown since it was looked at', facts);
  }
  if (image) content.set(new Uint8Array(image.buffer));
  return content.buffer;
}

export class Machine {
  /** Null: none is replicated. */
  readonly disk: MachineDisk | null;
  readonly #emulator: V86Emulator;
  readonly #main: V86Main;
  readonly #cpu: V86Cpu;
  readonly #clock: GuestClock;
  readonly #identity: MachineIdentity;
  #ramCache: Ram | null = null;

  /** Stopped, at its reset vector or its multiboot entry. */
  static async create({ spec, shared }: WorkerStart, hooks: MachineHooks): Promise<Machine> {
    const clock = new GuestClock(performance.now.bind(performance));
    const create = await loadV86(clock.now);
    const images = await readImages(spec);
    const hda = { buffer: diskOf(spec, images.hda) };
    const cdrom = images.cdrom ?? { buffer: new ArrayBuffer(EMPTY_DISK_BYTES) };
    const options: V86Options = {
      wasm_path: createRequire(import.meta.url).resolve('v86/build/v86.wasm'),
      memory_size: spec.memoryBytes,
      vga_memory_size: VIDEO_MEMORY_BYTES,
      acpi: spec.acpi,
      cmdline: spec.commandLine,
      autostart: false,
      disable_keyboard: true,
      disable_mouse: true,
      disable_speaker: true,
      hda,
      cdrom,
      ...(images.fda && { fda: images.fda }),
      ...(images.bios && { bios: images.bios }),
      ...(images.vgaBios && { vga_bios: images.vgaBios }),
      ...(images.kernel && { bzimage: images.kernel }),
      ...(images.initrd && { initrd: images.initrd }),
      ...(images.multiboot && { multiboot: images.multiboot }),
    };
    // The typings do not know that 'none' leaves the network card out.
    const emulator = create(Object.assign(options, { net_device: { type: 'none' } }));
    await new Promise<void>((resolve) => emulator.add_listener('emulator-loaded', resolve));
    const fingerprint = crc32(
      JSON.stringify([
        spec.acpi,
        // A context that has a disk in it is none of a machine whose disk is replicated.
        spec.diskBytes > 0 ? `replicated ${spec.diskBytes}` : EMPTY_DISK_BYTES,
        cdrom.buffer.byteLength,
        images.fda?.buffer.byteLength ?? 0,
        images.bios ? crc32(Buffer.from(images.bios.buffer)) : 0,
        images.vgaBios ? crc32(Buffer.from(images.vgaBios.buffer)) : 0,
      ]),
    );
    const identity = { v86Version: await v86Version(), pages: spec.memoryBytes / PAGE_SIZE, fingerprint };
    return new Machine(emulator, clock, identity, { spec, shared }, hooks);
  }

  private constructor(
    emulator: V86Emulator,
    clock: GuestClock,
    identity: MachineIdentity,
    { spec, shared }: WorkerStart,
    hooks: MachineHooks,
  ) {
    this.#emulator = emulator;
    this.#main = emulator.v86;
    this.#cpu = emulator.v86.cpu;
    this.#clock = clock;
    this.#identity = identity;
    const cpu = this.#cpu;
    const main = this.#main;
    if (cpu.mem8.length !== spec.memoryBytes) {
      const facts = { key: 'memoryBytes', value: spec.memoryBytes, actual: cpu.mem8.length };
      throw badConfiguration('v86 gave the machine another memory size', facts);
    }

    // RAM travels as pages: the state is saved without, and restored over what is in RAM.
    const bitmap = { get_buffer: () => new ArrayBuffer(0) };
    cpu.pack_memory = () => ({ bitmap, packed_memory: new Uint8Array(0) });
    cpu.unpack_memory = () => undefined;
    // The CD is read-only and stands in the configuration of both sides.
    const cd = cpu.devices.cdrom?.buffer;
    if (cd) {
      cd.get_state = () => [];
      cd.set_state = () => undefined;
    }

    const image = cpu.devices.ide?.primary?.master.buffer;
    if (spec.diskBytes > 0 && !image) throw failed('v86 gave the machine no disk', { name: spec.name });
    const figures = new Float64Array(shared.figures);
    const pressed = () => hooks.pressed();
    const options = { poolBytes: DISK_POOL_BYTES, figures, pressed };
    this.disk = spec.diskBytes > 0 && image ? new MachineDisk(image, options) : null;

    const runSlice = cpu.main_loop;
    cpu.main_loop = () => {
      try {
        const idleMs = runSlice();
        if (cpu.in_hlt[0] === 1 && (valueAt(cpu.flags, 0) & INTERRUPT_FLAG) === 0) {
          main.stop();
          hooks.halted();
        }
        return idleMs;
      } catch (error) {
        main.stop();
        hooks.crashed(asError(error));
        return 0;
      }
    };
    emulator.add_listener('serial0-output-byte', (byte) => hooks.output(byte));
    if (spec.empty) this.#clearMemory();
  }

  /** Live view of RAM; valid until the guest runs again. */
  ram(): Ram {
    if (this.#ramCache === null || this.#ramCache.octets.length === 0) {
      const { buffer, byteOffset, length } = this.#cpu.mem8;
      this.#ramCache = {
        octets: Buffer.from(buffer, byteOffset, length),
        words: new Uint32Array(buffer, byteOffset, length / 4),
      };
    }
    return this.#ramCache;
  }

  run(): void {
    this.#clock.run();
    this.#main.run();
  }

  /** The guest executes nothing from here on, and its time stands still. */
  stop(): void {
    this.#main.stop();
    this.#clock.freeze();
  }

  input(bytes: Uint8Array): void {
    this.#emulator.serial_send_bytes(0, bytes);
  }

  /** Serial input that the guest has not read yet. */
  get pendingInput(): number {
    return this.#cpu.devices.uart0.input.length;
  }

  /** The machine must be stopped. */
  saveContext(): Uint8Array<ArrayBuffer> {
    return encodeContext(this.#identity, {
      clock: this.#clock.now(),
      serialInput: Uint8Array.from(this.#cpu.devices.uart0.input),
      state: this.#main.save_state(),
    });
  }

  /** The machine must be stopped. @throws HypervisorError BAD_CONTEXT */
  restoreContext(blob: Uint8Array): void {
    const context = decodeContext(this.#identity, blob);
    const cpu = this.#cpu;
    const { last_result, fpu_status_word, mxcsr } = cpu;
    this.#clock.set(context.clock);
    try {
      this.#main.restore_state(context.state);
    } catch (error) {
      const options = { cause: asError(error) };
      const facts = { length: blob.length };
      throw new HypervisorError('BAD_CONTEXT', 'v86 does not accept the state', facts, options);
    } finally {
      // v86 puts copies in the place of these three views, and so leaves the registers as they were: flags that are
      // computed from the last result, the FPU's status and MXCSR would be those of this machine, not the saved one's.
      cpu.last_result = restoredView(cpu.last_result, last_result);
      cpu.fpu_status_word = restoredView(cpu.fpu_status_word, fpu_status_word);
      cpu.mxcsr = restoredView(cpu.mxcsr, mxcsr);
    }
    cpu.devices.uart0.input = Array.from(context.serialInput);
  }

  /** Only pages that are not zero are written: one that was never touched takes no memory of the host. */
  #clearMemory(): void {
    const { octets } = this.ram();
    const zeroes = Buffer.alloc(PAGE_SIZE);
    for (let at = 0; at < octets.length; at += PAGE_SIZE) {
      if (zeroes.compare(octets, at, at + PAGE_SIZE) !== 0) octets.fill(0, at, at + PAGE_SIZE);
    }
  }
}

function restoredView<View extends Int32Array | Uint16Array>(saved: View, view: View): View {
  if (saved !== view && saved.length === 1) view[0] = valueAt(saved, 0);
  return view;
}

/**
 * The guest's clock: milliseconds that every timer of the machine (PIT, APIC, TSC, ACPI) is read against.
 *
 *   running     real time plus an offset: a guest sees the time that a pause took, as on real hardware
 *   frozen      one value, so that a state saved during a pause is of one instant
 *   set         frozen at the value of a saved machine; when it runs, time goes on from there, whatever this process's
 *               own clock says. Without that, absolute times in the saved timers would mean nothing here.
 */
class GuestClock {
  readonly #realNow: () => number;
  #offset = 0;
  #frozenAt: number | null = 0;
  #rebase = true;

  /** Frozen at 0 to begin with. `realNow` gives monotonic milliseconds. */
  constructor(realNow: () => number) {
    this.#realNow = realNow;
  }

  readonly now = (): number => this.#frozenAt ?? this.#realNow() + this.#offset;

  freeze(): void {
    this.#frozenAt = this.now();
  }

  set(value: number): void {
    this.#frozenAt = value;
    this.#rebase = true;
  }

  run(): void {
    if (this.#rebase) this.#offset = this.now() - this.#realNow();
    this.#rebase = false;
    this.#frozenAt = null;
  }
}
