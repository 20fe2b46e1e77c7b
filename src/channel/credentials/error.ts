// What can be wrong with what a side shows of itself, beside TLS (ChannelError TLS) and the system errors of its files.

import { RomulusError } from '../../errors.js';

export type CredentialsErrorCode = 'BAD_TOKEN'; // the file of the token cannot be used

export class CredentialsError extends RomulusError<CredentialsErrorCode> {}
