// What the world says to a guest's serial port: kept by the socket until the guest reads it, up to a limit.

import type { Duplex } from 'node:stream';
import { HypervisorError, failed } from '../../port.js';

/** Octets that may wait. */
const INPUT_BYTES_MAX = 64 * 1024;

/** `serial` null: it is not ours. @throws HypervisorError UNSUPPORTED, or FAILED if the guest does not read */
export function sendInput(serial: Duplex | null, bytes: Uint8Array): void {
  if (!serial) throw new HypervisorError('UNSUPPORTED', 'the guest’s serial port is not ours');
  const waiting = serial.writableLength;
  if (waiting + bytes.length > INPUT_BYTES_MAX) {
    const facts = { waiting, length: bytes.length, limit: INPUT_BYTES_MAX };
    throw failed('the domain does not read its serial input', facts);
  }
  serial.write(new Uint8Array(bytes));
}
