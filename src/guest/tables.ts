// Which ops table serves which type of domain.

import { DomainType, domainTypeName } from '../stream/format.js';
import { GuestError } from './error.js';
import type { RestoreOps, SaveOps } from './ops.js';
import { restoreOpsX86Hvm } from './x86-hvm/restore.js';
import { saveOpsX86Hvm } from './x86-hvm/save.js';
import { restoreOpsX86Pv } from './x86-pv/restore.js';
import { saveOpsX86Pv } from './x86-pv/save.js';

/** @throws GuestError UNSUPPORTED_DOMAIN_TYPE */
export function saveOpsFor(type: number): SaveOps {
  if (type === DomainType.X86_HVM) return saveOpsX86Hvm;
  if (type === DomainType.X86_PV) return saveOpsX86Pv;
  throw unsupported(type, 'saved');
}

/** @throws GuestError UNSUPPORTED_DOMAIN_TYPE */
export function restoreOpsFor(type: number): RestoreOps {
  if (type === DomainType.X86_HVM) return restoreOpsX86Hvm;
  if (type === DomainType.X86_PV) return restoreOpsX86Pv;
  throw unsupported(type, 'restored');
}

function unsupported(type: number, done: string): GuestError {
  return new GuestError('UNSUPPORTED_DOMAIN_TYPE', `${domainTypeName(type)} domains cannot be ${done}`, {
    type,
  });
}
