// How a guest ends, from what QEMU says: a shutdown of its own, or QEMU's `quit`, ends the domain ('shutdown'); a panic
// and a signal to QEMU are 'crashed'. A reset is the guest's business.

import type { DomainEvent } from '../../port.js';
import type { QmpEvent } from './qmp.js';

/** Null: it does not end. */
export function endOf({ name, data }: QmpEvent): DomainEvent | null {
  if (name === 'GUEST_PANICKED') return { kind: 'crashed', reason: 'the guest panicked' };
  if (name !== 'SHUTDOWN') return null;
  const reason = String(data['reason']);
  switch (reason) {
    case 'guest-shutdown':
    case 'guest-reset': // QEMU was told to end at a reset
    case 'host-qmp-quit':
    case 'host-ui':
      return { kind: 'shutdown' };
    default:
      return { kind: 'crashed', reason: `QEMU ends: ${reason}` };
  }
}
