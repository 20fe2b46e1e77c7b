// The part of v86's inside that its typings leave out and that we need. Names are those of v86 0.5 (src/cpu.js,
// src/main.js, src/uart.js); its build keeps them. Typed arrays on the CPU are live views of its memory.

import type { V86Options } from 'v86';

export interface V86Cpu {
  /** Guest RAM. May move when the emulator's own memory grows. */
  readonly mem8: Uint8Array;
  readonly in_hlt: Uint8Array;
  readonly flags: Int32Array;
  last_result: Int32Array;
  fpu_status_word: Uint16Array;
  mxcsr: Int32Array;
  /** Runs the vCPU for a while; returns the milliseconds that it may sleep. */
  main_loop: () => number;
  pack_memory(): { bitmap: { get_buffer(): ArrayBuffer }; packed_memory: Uint8Array };
  unpack_memory(bitmap: unknown, packed: Uint8Array): void;
  readonly devices: {
    readonly uart0: { input: number[] };
    readonly cdrom?: { readonly buffer?: V86DiskBuffer };
    readonly ide?: { readonly primary?: { readonly master: { readonly buffer: V86DiskImage | null } } };
  };
}

/** A disk image; what get_state returns is written into the saved state. */
export interface V86DiskBuffer {
  get_state(): unknown[];
  set_state(state: unknown[]): void;
}

/** An image in memory (v86's SyncBuffer), which its drive reads and writes at once. */
export interface V86DiskImage extends V86DiskBuffer {
  buffer: ArrayBuffer;
  readonly byteLength: number;
  /** What the guest writes. */
  set(offset: number, data: Uint8Array, done: () => void): void;
}

export interface V86Main {
  readonly cpu: V86Cpu;
  run(): void;
  /** No instruction is executed after this returns, until run(). */
  stop(): void;
  /** Synchronous. */
  save_state(): ArrayBuffer;
  restore_state(state: ArrayBuffer): void;
}

export interface V86Emulator {
  readonly v86: V86Main;
  add_listener(event: 'emulator-loaded', listener: () => void): void;
  add_listener(event: 'serial0-output-byte', listener: (byte: number) => void): void;
  serial_send_bytes(port: number, bytes: Uint8Array): void;
}

/** Loads v86 with `now` as the clock that all its devices read, in milliseconds. */
export async function loadV86(now: () => number): Promise<(options: V86Options) => V86Emulator> {
  // v86 binds performance.now once, when its module is evaluated, and has no other way to be given a clock.
  Object.defineProperty(performance, 'now', { value: now, configurable: true });
  try {
    const { V86 } = await import('v86');
    return (options) => new V86(options) as InstanceType<typeof V86> & V86Emulator;
  } finally {
    Reflect.deleteProperty(performance, 'now');
  }
}
