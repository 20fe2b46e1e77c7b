// The shape of what carries out the vigil's effects.

import type { Performer } from '../flow/feedback.js';
import type { SecondaryEffect, SecondaryEvent } from './vigil-state.js';

export type Perform = Performer<SecondaryEvent, SecondaryEffect>;
export type Effect<Kind extends SecondaryEffect['kind']> = Extract<SecondaryEffect, { readonly kind: Kind }>;
